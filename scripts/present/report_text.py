"""The sentences of the technical report, each in English and in Portuguese, and how its numbers are written.

A sentence is a template: `{name}` is filled in, **bold** and `code` are as in Markdown. What is filled in is never read
as a template, so a model's answer cannot change what is around it.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from string import Formatter

import pandas as pd

# A piece of running text: ("text" | "strong" | "emph" | "code", what it says).
Span = tuple[str, str]
Spans = list[Span]

LANGUAGES = ("en", "pt")
REGIONS = {"en": "us", "pt": "br"}

TEXTS: dict[str, tuple[str, str]] = {
    # -- front ---------------------------------------------------------------------------------------------------
    "title": (
        "What LoRA fine-tuning for text-to-SQL gains and costs",
        "O que o ajuste fino com LoRA para text-to-SQL ganha e custa",
    ),
    "byline": (
        "Technical report, written by the LoRA Trade-off workflow from the results of the study `{study}`",
        "Relatório técnico, escrito pelo workflow LoRA Trade-off a partir dos resultados do estudo `{study}`",
    ),
    "link_report.pdf": ("This report as PDF", "Este relatório em PDF"),
    "link_tables.html": ("All tables", "Todas as tabelas"),
    "link_answers.html": ("Every question with every answer", "Cada pergunta com cada resposta"),
    "abstract": ("Abstract", "Resumo"),
    "question": (
        "When an instruct model is fine-tuned with LoRA to translate questions into SQL, how much does it gain at "
        "that, and how much general knowledge does it lose?",
        "Quando um modelo instruct passa por ajuste fino com LoRA para traduzir perguntas em SQL, quanto ele ganha "
        "nessa tarefa e quanto conhecimento geral perde?",
    ),
    "abstract_setup": (
        "{models} and {adapters} answered {spider} Spider questions on {databases} ({semantics} semantics) and {mmlu} "
        "MMLU questions.",
        "{models} e {adapters} responderam a {spider} perguntas do Spider sobre {databases} (semântica {semantics}) e "
        "a {mmlu} perguntas do MMLU.",
    ),
    "abstract_setup_base": (
        "{models} answered {spider} Spider questions on {databases} ({semantics} semantics) and {mmlu} MMLU questions.",
        "{models} respondeu a {spider} perguntas do Spider sobre {databases} (semântica {semantics}) e a {mmlu} do "
        "MMLU.",
    ),
    "abstract_base": (
        "The base model {model} reaches {accuracy} execution accuracy and {mmlu} on MMLU.",
        "O modelo base {model} alcança {accuracy} de execution accuracy e {mmlu} no MMLU.",
    ),
    "abstract_one": (
        "Against its base, the adapter changes {measure} by {difference}: **{verdict}**.",
        "Em relação à base, o adaptador muda {measure} em {difference}: **{verdict}**.",
    ),
    "abstract_many": (
        "On {measure}, {better} of {n} adapters are better than their base, {worse} worse and {same} not "
        "distinguishable at this n (differences from {low} to {high} pp).",
        "Em {measure}, {better} de {n} adaptadores são melhores que a base, {worse} piores e {same} não distinguíveis "
        "com este n (diferenças de {low} a {high} pp).",
    ),
    "abstract_tested": (
        "Differences are paired and tested, p values adjusted by Holm's method.",
        "As diferenças são pareadas e testadas, com valores p ajustados pelo método de Holm.",
    ),
    "abstract_defects": (
        "The method has the known defects named above.",
        "O método tem os defeitos conhecidos listados acima.",
    ),
    "no_adapters": (
        "This study has no adapters: it measures base models only, and nothing can be said about fine-tuning.",
        "Este estudo não tem adaptadores: mede apenas modelos base, e nada se pode dizer sobre ajuste fino.",
    ),
    "defects_title": ("Known defects of this method", "Defeitos conhecidos deste método"),
    "defects_accepted": (
        "This study runs although its audit may fail: {names}. What the audit found stands in "
        "`runs/<model>/audit_labels.json`.",
        "Este estudo roda embora sua auditoria possa falhar: {names}. O que a auditoria encontrou está em "
        "`runs/<model>/audit_labels.json`.",
    ),
    # -- headings ------------------------------------------------------------------------------------------------
    "methodology": ("Methodology", "Metodologia"),
    "pipeline": ("Pipeline", "Pipeline"),
    "data": ("Data and splits", "Dados e partições"),
    "models": ("Models", "Modelos"),
    "adapters": ("Adapters and hyperparameters", "Adaptadores e hiperparâmetros"),
    "metric": ("Metric", "Métrica"),
    "prompts": ("Prompts", "Prompts"),
    "statistics": ("Statistics", "Estatística"),
    "results": ("Results", "Resultados"),
    "change": ("Change against the base model", "Mudança em relação ao modelo base"),
    "execution_accuracy": ("Execution accuracy on Spider", "Execution accuracy no Spider"),
    "mmlu": ("MMLU", "MMLU"),
    "errors": ("Classes of errors", "Classes de erros"),
    "harness": ("Other tasks", "Outras tarefas"),
    "seeds": ("Seeds", "Sementes"),
    "recommendation": ("Recommendation", "Recomendação"),
    "shots": ("Prompting alone", "Só prompting"),
    "points": ("Adapter strength, trajectory and soups", "Intensidade do adaptador, trajetória e soups"),
    "cost": ("Training and cost", "Treino e custo"),
    "error_analysis": ("Error analysis", "Análise de erros"),
    "discussion": ("Discussion", "Discussão"),
    "worth": ("Gain and loss", "Ganho e perda"),
    "factors": ("Which factor matters?", "Qual fator importa?"),
    "indistinct": ("What is not distinguishable", "O que não é distinguível"),
    "limits": ("Limits", "Limitações"),
    "reproducibility": ("Reproducibility", "Reprodutibilidade"),
    # -- methodology ---------------------------------------------------------------------------------------------
    "pipeline_text": (
        "Fig. {figure} shows the way from the releases to this page. Prompts are rendered by each model's own chat "
        "template. Before training, the labels of every row are decoded and compared with the gold SQL. Each answer "
        "leaves one record; all tables, figures and sentences on results are made from the records.",
        "A Fig. {figure} mostra o caminho dos dados até esta página. Os prompts são gerados com o chat template de "
        "cada modelo. Antes do treino, os rótulos de cada linha são decodificados e comparados com o SQL de "
        "referência. Cada resposta deixa um registro; todas as tabelas, figuras e frases sobre resultados são feitas "
        "a partir dos registros.",
    ),
    "pipeline_caption": (
        "The pipeline; only what is stale is computed again",
        "O pipeline; só o que está desatualizado é recalculado",
    ),
    "step_sources": ("Sources", "Fontes"),
    "step_sources_detail": ("Spider, MMLU, model, by hash", "Spider, MMLU, modelo, por hash"),
    "step_splits": ("Splits", "Partições"),
    "step_splits_detail": ("train, validation, shots, dev; suite", "treino, validação, exemplos, dev; suíte"),
    "step_prompts": ("Prompts", "Prompts"),
    "step_prompts_detail": ("chat template, one BOS", "chat template, um BOS"),
    "step_train": ("LoRA training", "Treino LoRA"),
    "step_train_detail": (
        "audit of labels, then one adapter per setting",
        "auditoria de rótulos, um adaptador por ajuste",
    ),
    "step_base": ("Base model", "Modelo base"),
    "step_base_detail": ("as it is", "sem ajuste"),
    "step_answers": ("Answers", "Respostas"),
    "step_answers_detail": ("all raw answers kept", "respostas brutas guardadas"),
    "step_score": ("Scoring", "Avaliação"),
    "step_score_detail": ("SQL executed; letters compared", "SQL executado; letras comparadas"),
    "step_statistics": ("Statistics", "Estatística"),
    "step_statistics_detail": ("tables, figures, report", "tabelas, figuras, relatório"),
    "spider_source": (
        "Spider comes from `{source}`{archive}. Table {table} gives the splits. The few-shot examples ({shots}) are "
        "in no other split, and no dev question is used in training.",
        "O Spider vem de `{source}`{archive}. A Tabela {table} mostra as partições. Os exemplos few-shot ({shots}) "
        "não estão em nenhuma outra partição, e nenhuma pergunta do dev é usada no treino.",
    ),
    "spider_source_dev": (
        "Spider comes from `{source}`{archive}. Table {table} gives the splits. The few-shot examples ({shots}) are "
        "in no other split. The dev questions, those of the evaluation, were used to choose the checkpoint.",
        "O Spider vem de `{source}`{archive}. A Tabela {table} mostra as partições. Os exemplos few-shot ({shots}) "
        "não estão em nenhuma outra partição. As perguntas do dev, as da avaliação, foram usadas para escolher o "
        "checkpoint.",
    ),
    "archive": (" (archive sha256 `{sha256}`)", " (arquivo sha256 `{sha256}`)"),
    "none": ("none", "nenhum"),
    "splits_caption": ("Splits of Spider", "Partições do Spider"),
    "splits_note": (
        "Evaluated: {n} dev questions on {databases}. By hardness: easy / medium / hard / extra. The digits of a hash "
        "are the first {digits} of 64.",
        "Avaliadas: {n} perguntas do dev sobre {databases}. Por dificuldade: easy / medium / hard / extra. Os dígitos "
        "de um hash são os {digits} primeiros de 64.",
    ),
    "mmlu_source": (
        "MMLU comes from `{source}`: {n} test questions ({categories}), drawn with seed {seed}, with {shots} solved "
        "examples {shots_from} before each.",
        "O MMLU vem de `{source}`: {n} perguntas de teste ({categories}), sorteadas com a semente {seed}, com {shots} "
        "exemplos resolvidos {shots_from} antes de cada uma.",
    ),
    # Where the solved examples before an MMLU question come from, by mmlu.shots_from.
    "own_dev": ("of the same subject", "da mesma disciplina"),
    "first_subject": ("of the first subject, the same for all,", "da primeira disciplina, os mesmos para todas,"),
    "fixed": ("that the study names, the same for all,", "que o estudo define, os mesmos para todas,"),
    "same_prompts": (
        "The base and its adapters were given the same prompts.",
        "A base e seus adaptadores receberam os mesmos prompts.",
    ),
    "other_prompts": (
        "On Spider the base was given other prompts than its adapters, so a difference between them holds that of the "
        "prompts too.",
        "No Spider a base recebeu prompts diferentes dos de seus adaptadores, de modo que uma diferença entre eles "
        "inclui também a dos prompts.",
    ),
    "models_caption": ("Models", "Modelos"),
    "hyper_caption": (
        "Hyperparameters, as PEFT and TRL name them; swept values are separated by semicolons",
        "Hiperparâmetros, com os nomes de PEFT e TRL; valores variados são separados por ponto e vírgula",
    ),
    "hyper_text": (
        "Table {table} holds every setting of the training, and Table {trained} what it gave. An adapter is named "
        "after its swept settings.",
        "A Tabela {table} traz todas as configurações do treino, e a Tabela {trained} o que ele produziu. Um "
        "adaptador tem o nome de suas configurações variadas.",
    ),
    "trained_caption": ("What training gave", "O que o treino produziu"),
    "trained_note": (
        "Loss: the mean over the last logging interval, on the labels alone.",
        "Perda: a média do último intervalo de registro, apenas sobre os rótulos.",
    ),
    "audit_pass": (
        "{model}: of {rows} training rows {checked} were checked; the labels of all equal the gold SQL and the end of "
        "turn; {truncated} truncated; {shots} few-shot and {dev} dev rows among them.",
        "{model}: de {rows} linhas de treino, {checked} foram verificadas; os rótulos de todas são o SQL de "
        "referência e o fim do turno; {truncated} truncadas; {shots} linhas few-shot e {dev} do dev entre elas.",
    ),
    "audit_fail": (
        "{model}: of {rows} training rows {checked} were checked, and **the audit failed**: not all labels equal the "
        "gold SQL and the end of turn; {truncated} truncated; {shots} few-shot and {dev} dev rows among them.",
        "{model}: de {rows} linhas de treino, {checked} foram verificadas, e **a auditoria falhou**: nem todos os "
        "rótulos são o SQL de referência e o fim do turno; {truncated} truncadas; {shots} linhas few-shot e {dev} do "
        "dev entre elas.",
    ),
    "audit_lead": (
        "What the loss was computed on was decoded before training:",
        "Aquilo sobre que a perda foi calculada foi decodificado antes do treino:",
    ),
    "metric_text": (
        "Execution accuracy is a DeepEval `BaseMetric` over three parts. An *extractor*, the same for all models, "
        "takes the SQL out of the answer. A *sandbox* executes it and the gold query on the question's SQLite "
        "database: read only, behind an allow-list, with limits of memory and rows and a deadline, in a process that "
        "can be killed. A *comparison* of the two results gives five verdicts from one execution; a failed or missing "
        "answer is a wrong one. The headline follows {semantics} semantics: an answer is right if {meaning}.",
        "A execution accuracy é uma `BaseMetric` do DeepEval com três partes. Um *extrator*, o mesmo para todos os "
        "modelos, retira o SQL da resposta. Um *sandbox* executa esse SQL e a consulta de referência no banco SQLite "
        "da pergunta: somente leitura, com lista de permissões, limites de memória e de linhas e um prazo, em um "
        "processo que pode ser encerrado. Uma *comparação* dos dois resultados dá cinco vereditos de uma só execução; "
        "uma resposta que falha ou falta conta como errada. A semântica principal é a {semantics}: uma resposta está "
        "certa se {meaning}.",
    ),
    "mmlu_text": (
        "On MMLU the answer is the letter to which the model gives the highest probability. As a cross-check a letter "
        "is also read from generated text, where a text without a plain letter is invalid and counts as wrong.",
        "No MMLU a resposta é a letra à qual o modelo dá a maior probabilidade. Como verificação, lê-se também uma "
        "letra do texto gerado; um texto sem letra clara é inválido e conta como errado.",
    ),
    "set": ("set", "set"),
    "bag": ("bag", "bag"),
    "ordered": ("ordered", "ordered"),
    "test_suite": ("test suite", "test suite"),
    "columns_any_order": ("columns in any order", "de colunas em qualquer ordem"),
    "set_means": (
        "its query gives the gold query's rows, however often, in any order",
        "sua consulta dá as linhas da de referência, quantas vezes for, em qualquer ordem",
    ),
    "bag_means": (
        "its query gives the gold query's rows, equally often, in any order, with columns in the same order",
        "sua consulta dá as linhas da de referência, com a mesma frequência, em qualquer ordem, com as colunas na "
        "mesma ordem",
    ),
    "ordered_means": (
        "its query gives the gold query's rows, equally often, and in the same order where the gold query sorts",
        "sua consulta dá as linhas da de referência, com a mesma frequência e, onde a de referência ordena, na mesma "
        "ordem",
    ),
    "test_suite_means": (
        "the rules of Spider's official test-suite evaluator say so on one database",
        "as regras do avaliador oficial test-suite do Spider o dizem em um banco",
    ),
    "columns_any_order_means": (
        "its query gives the gold query's rows, equally often, in any order, for some order of its columns",
        "sua consulta dá as linhas da de referência, com a mesma frequência, em qualquer ordem, para alguma ordem das "
        "colunas",
    ),
    "prompt_spider": (
        "The first dev prompt of {model} on Spider, as the model reads it:",
        "O primeiro prompt do dev de {model} no Spider, como o modelo o lê:",
    ),
    "prompt_mmlu": ("The first MMLU prompt of {model}:", "O primeiro prompt do MMLU de {model}:"),
    "cut": ("({n} more characters.)", "(Mais {n} caracteres.)"),
    "cut_from": ("({n} more characters; whole in `{where}`.)", "(Mais {n} caracteres; completo em `{where}`.)"),
    "statistics_text": (
        "Intervals are {level}. Those of an accuracy are Wilson's. A difference is tuned minus base on the same "
        "questions, in percentage points (pp). {units} Holm's method adjusts the p values, of the {headline} headline "
        "comparisons (execution accuracy, aggregate MMLU) and of the {parts} of single MMLU categories apart; a "
        "verdict follows the adjusted p at level {alpha}. Not distinguishable stands for not distinguishable at this "
        "n; it does not mean equal. Beside each difference stands the least true one that a study of this n would "
        "find with 80% probability. The percent change is 100·(tuned - base)/base on pooled counts, n/a where the "
        "base is not shown to be above chance (25% on MMLU).",
        "Os intervalos são de {level}. Os de uma acurácia são de Wilson. Uma diferença é ajustado menos base nas "
        "mesmas perguntas, em pontos percentuais (pp). {units} O método de Holm ajusta os valores p, das {headline} "
        "comparações principais (execution accuracy, MMLU agregado) e das {parts} de categorias do MMLU "
        "separadamente; um veredito segue o p ajustado no nível {alpha}. Não distinguível quer dizer não distinguível "
        "com este n; não quer dizer igual. Ao lado de cada diferença está a menor diferença real que um estudo com "
        "este n encontraria com probabilidade de 80%. A mudança percentual é 100·(ajustado - base)/base sobre as "
        "contagens totais, n/a onde não se mostra que a base está acima do acaso (25% no MMLU).",
    ),
    "unit_database": (
        "On Spider, differences are clustered by database ({n}).",
        "No Spider, as diferenças são agrupadas por banco ({n}).",
    ),
    "unit_subject": ("On MMLU, they are clustered by subject ({n}).", "No MMLU, são agrupadas por disciplina ({n})."),
    "unit_question_spider": (
        "On Spider, questions are taken as drawn at random (exact McNemar test): what is found holds for these "
        "databases.",
        "No Spider, as perguntas são tomadas como sorteadas (teste exato de McNemar): o que se encontra vale para "
        "estes bancos.",
    ),
    "unit_question_mmlu": (
        "On MMLU, questions are taken as drawn at random (exact McNemar test): what is found holds for these subjects.",
        "No MMLU, as perguntas são tomadas como sorteadas (teste exato de McNemar): o que se encontra vale para estas "
        "disciplinas.",
    ),
    # -- results -------------------------------------------------------------------------------------------------
    "models_text": (
        "{table} lists the models. A model has one precision, the same in training and in all its answers.",
        "A {table} lista os modelos. Um modelo tem uma só precisão, a mesma no treino e em todas as suas respostas.",
    ),
    "change_text": (
        "{table} compares each adapter with its base on the same questions{figures}.",
        "A {table} compara cada adaptador com sua base nas mesmas perguntas{figures}.",
    ),
    "h_set": ("Set", "Set"),
    "h_bag": ("Bag", "Bag"),
    "h_ordered": ("Ordered", "Ordered"),
    "h_test_suite": ("Test suite", "Test suite"),
    "h_columns_any_order": ("Any column order", "Qualquer ordem de colunas"),
    "finding": (
        "{name}: execution accuracy {base_ex}% → {ex}%, {gain}: **{gain_verdict}**; MMLU {base_mmlu}% → {mmlu}%, "
        "{loss}: **{loss_verdict}**.",
        "{name}: execution accuracy {base_ex}% → {ex}%, {gain}: **{gain_verdict}**; MMLU {base_mmlu}% → {mmlu}%, "
        "{loss}: **{loss_verdict}**.",
    ),
    "accuracy_text": (
        "{tables} give execution accuracy by run, by semantics and by hardness. Highest is {name} with {accuracy}.",
        "{tables} dão a execution accuracy por execução, semântica e dificuldade. A mais alta é a de {name}, com "
        "{accuracy}.",
    ),
    "accuracy_text_alone": (
        "{tables} give execution accuracy by semantics and by hardness.",
        "{tables} dão a execution accuracy por semântica e dificuldade.",
    ),
    "accuracy_text_zero": (
        "{tables} give execution accuracy by run, by semantics and by hardness. No run has a right answer.",
        "{tables} dão a execution accuracy por execução, semântica e dificuldade. Nenhuma execução tem uma resposta "
        "certa.",
    ),
    "mmlu_result": (
        "{table} gives accuracy on MMLU. By letter and by generation it differs by at most {gap} pp; at most "
        "{invalid}% of the generated answers of a run are invalid.",
        "A {table} dá a acurácia no MMLU. Por letra e por geração ela difere em no máximo {gap} pp; no máximo "
        "{invalid}% das respostas geradas de uma execução são inválidas.",
    ),
    "errors_text": (
        "{table} files every query in a class. Of the wrong answers the commonest class is: {classes}.",
        "A {table} põe cada consulta em uma classe. Das respostas erradas, a classe mais comum é: {classes}.",
    ),
    "errors_text_none": (
        "{table} files every query in a class. All queries are of class `ok`.",
        "A {table} põe cada consulta em uma classe. Todas as consultas são da classe `ok`.",
    ),
    "error_of": ("{name} {error} ({n})", "{name} {error} ({n})"),
    "seeds_text_result": (
        "{table} gathers adapters of one setting over their seeds.",
        "A {table} reúne os adaptadores de uma configuração ao longo das sementes.",
    ),
    "points_text": (
        "{table} compares points that are no adapters of the study with the base model. `@` and a number: what the "
        "adapter adds to each weight is multiplied by it, so that 0 is the base model and 1 the adapter. `@step`: the "
        "adapter as it was after so many optimizer steps. `soup-`: the mean of what several adapters add.",
        "A {table} compara com o modelo base pontos que não são adaptadores do estudo. `@` e um número: o que o "
        "adaptador soma a cada peso é multiplicado por ele, de modo que 0 é o modelo base e 1 o adaptador. `@step`: o "
        "adaptador como era depois de tantos passos do otimizador. `soup-`: a média do que vários adaptadores somam.",
    ),
    "recommend_rule": (
        "The questions are divided in two. On the validation half ({validation_execution_accuracy} Spider questions, "
        "{validation_mmlu} of MMLU) the candidate is chosen that gains most execution accuracy among those that are "
        "shown to gain it and {admitted}. The figures below are of the report half ({report_execution_accuracy} and "
        "{report_mmlu}), which had no part in the choice.",
        "As perguntas são divididas em duas metades. Na de validação ({validation_execution_accuracy} perguntas do "
        "Spider, {validation_mmlu} do MMLU) escolhe-se o candidato que mais ganha em execution accuracy entre os que "
        "comprovadamente a ganham e {admitted}. Os números abaixo são da metade de relato "
        "({report_execution_accuracy} e {report_mmlu}), que não participou da escolha.",
    ),
    "recommend_no_loss": (
        "whose loss of MMLU is not distinguishable",
        "cuja perda em MMLU não é distinguível",
    ),
    "recommend_cap": (
        "whose loss of MMLU, by its {level} interval, is at most {cap} pp",
        "cuja perda em MMLU, pelo intervalo de {level}, é de no máximo {cap} pp",
    ),
    "recommended": (
        "Of {n} candidates on {model}, {passed} pass, and **{name}** gains most. On the report half it changes "
        "execution accuracy by {gain} ({gained}) and MMLU by {loss} ({lost}).",
        "De {n} candidatos sobre {model}, {passed} passam, e **{name}** é o que mais ganha. Na metade de relato, muda "
        "a execution accuracy em {gain} ({gained}) e o MMLU em {loss} ({lost}).",
    ),
    "recommend_base": (
        "Of {n} candidates on {model} none passes: the base model itself is recommended.",
        "De {n} candidatos sobre {model} nenhum passa: recomenda-se o próprio modelo base.",
    ),
    "recommend_unseen": (
        "The least loss of MMLU that the validation half finds with 80% probability is {pp} pp; a smaller one may be "
        "there.",
        "A menor perda em MMLU que a metade de validação encontra com probabilidade de 80% é de {pp} pp; uma menor "
        "pode existir.",
    ),
    "recommend_few": (
        "Where there are few databases or subjects, interval and verdict hold for these alone.",
        "Onde há poucos bancos de dados ou matérias, intervalo e veredito valem só para estes.",
    ),
    "recommend_where": (
        "All candidates stand in `tables/recommendation.md`; what is recommended lies in `recommended/`, ready to "
        "load.",
        "Todos os candidatos estão em `tables/recommendation.md`; o recomendado está em `recommended/`, pronto para "
        "carregar.",
    ),
    "harness_text": (
        "{table} compares the adapters with their base on tasks of lm-evaluation-harness {version}, asked with its own "
        "prompts and without a chat template.",
        "A {table} compara os adaptadores com sua base em tarefas do lm-evaluation-harness {version}, com os prompts "
        "dele e sem template de chat.",
    ),
    "harness_base": (
        "On tasks of lm-evaluation-harness {version}, with its own prompts and without a chat template: {values}.",
        "Em tarefas do lm-evaluation-harness {version}, com os prompts dele e sem template de chat: {values}.",
    ),
    "harness_value": ("{measure} {value} (n = {n})", "{measure} {value} (n = {n})"),
    "harness_change": ("{name} in {measure} ({difference})", "{name} em {measure} ({difference})"),
    "harness_worse": (
        "**Worse** than the base in {k} of {n} comparisons: {names}.",
        "**Pior** que a base em {k} de {n} comparações: {names}.",
    ),
    "harness_better": (
        "**Better** than the base in {k} of {n} comparisons: {names}.",
        "**Melhor** que a base em {k} de {n} comparações: {names}.",
    ),
    "harness_same": (
        "**Not distinguishable** from the base at this n: {k} of {n}, with intervals that reach from {low} to {high} "
        "pp.",
        "**Não distinguível** da base com este n: {k} de {n}, com intervalos que vão de {low} a {high} pp.",
    ),
    "shots_text": (
        "{table} gives the base model with other numbers of solved examples in its text-to-SQL prompts; its own have "
        "{own}. Nothing is trained for this, so no general knowledge is lost.",
        "A {table} mostra o modelo base com outros números de exemplos resolvidos nos prompts de text-to-SQL; os "
        "próprios têm {own}. Nada é treinado para isso, e assim nenhum conhecimento geral se perde.",
    ),
    "shots_best": (
        "The best number for {model}, of equal ones the least, is {shots}: {accuracy}%.",
        "O melhor número para {model}, entre iguais o menor, é {shots}: {accuracy}%.",
    ),
    "shots_adapter": (
        "Its adapter with the highest accuracy, {adapter}, has {accuracy}%, {difference} pp against that; this "
        "difference is not tested.",
        "Seu adaptador de maior acurácia, {adapter}, tem {accuracy}%, {difference} pp em relação a isso; essa "
        "diferença não é testada.",
    ),
    "cost_text": (
        "{table} gives what each job of base and adapters took.",
        "A {table} mostra o que cada job da base e dos adaptadores consumiu.",
    ),
    "cost_text_loss": (
        "{table} gives what each job of base and adapters took, {figure} how the loss fell in training.",
        "A {table} mostra o que cada job da base e dos adaptadores consumiu; a {figure}, como a perda caiu no treino.",
    ),
    "short_interval": ("{value} pp, {low} to {high}", "{value} pp, {low} a {high}"),
    "short_range": ("{low} to {high} pp", "{low} a {high} pp"),
    "pp": ("{value} pp", "{value} pp"),
    "factors_one_found": (
        "Of {n} contrasts between adapters that differ in one factor, one is distinguishable:",
        "De {n} contrastes entre adaptadores que diferem em um fator, um é distinguível:",
    ),
    "factors_rest_one": (
        "The other is not distinguishable at this n ({names}); that does not show that it is nil.",
        "O outro não é distinguível com este n ({names}); isso não mostra que seja nulo.",
    ),
    "replay_source": (
        "In the training of {adapters}, rows of general knowledge were replayed beside the text-to-SQL rows. Of "
        "`{source}`, {n} rows were drawn with seed {seed}, and each adapter took as many of them as its fraction says. "
        "{dropped} rows of MMLU's test or dev files and {repeated} repeated ones were left out; each row was compared "
        "with all {known} of these files.",
        "No treino de {adapters}, linhas de conhecimento geral foram repetidas além das linhas de texto para SQL. De "
        "`{source}` foram sorteadas {n} linhas com a semente {seed}, e cada adaptador usou tantas quantas sua fração "
        "diz. Ficaram de fora {dropped} linhas dos arquivos test e dev do MMLU e {repeated} duplicadas; cada linha foi "
        "comparada com todas as {known} desses arquivos.",
    ),
    "mitigation_replay.fraction": ("Replay", "A repetição de conhecimento geral"),
    "mitigation_replay.kl": ("The KL term on replayed rows", "O termo KL nas linhas repetidas"),
    "mitigation_training.weight_decay": ("Weight decay", "O decaimento dos pesos"),
    "mitigation_higher": (
        "**{what}** reduced forgetting: at {high} against {low}, MMLU changed by {difference} ({p}){model}.",
        "**{what}** reduziu o esquecimento: com {high} em vez de {low}, o MMLU mudou em {difference} ({p}){model}.",
    ),
    "mitigation_lower": (
        "**{what}** increased forgetting: at {high} against {low}, MMLU changed by {difference} ({p}){model}.",
        "**{what}** aumentou o esquecimento: com {high} em vez de {low}, o MMLU mudou em {difference} ({p}){model}.",
    ),
    "mitigation_same": (
        "**{what}** did not distinguishably reduce forgetting: at {high} against {low}, MMLU changed by {difference} "
        "({p}){model}, where this n would find a true difference of {detectable} pp four times in five.",
        "**{what}** não reduziu o esquecimento de modo distinguível: com {high} em vez de {low}, o MMLU mudou em "
        "{difference} ({p}){model}, e este n encontraria uma diferença real de {detectable} pp em quatro de cinco "
        "vezes.",
    ),
    "factors_one_none": (
        "The one contrast between adapters that differ in one factor is not distinguishable at this n. That does not "
        "show that the factor does not matter.",
        "O único contraste entre adaptadores que diferem em um fator não é distinguível com este n. Isso não mostra "
        "que o fator não importa.",
    ),
    "change_caption": ("Adapters against their base model", "Adaptadores em relação ao modelo base"),
    "change_categories_caption": (
        "Adapters against their base model, by MMLU category",
        "Adaptadores em relação ao modelo base, por categoria do MMLU",
    ),
    "change_note": (
        "Spider: n = {spider}, {semantics} semantics, questions sha256 `{spider_hash}`. MMLU: n = {mmlu}, questions "
        "sha256 `{mmlu_hash}`. Gained: base wrong, tuned right; lost: the reverse. Detectable: the least true "
        "difference that this n would find with 80% probability, before adjustment.",
        "Spider: n = {spider}, semântica {semantics}, perguntas sha256 `{spider_hash}`. MMLU: n = {mmlu}, perguntas "
        "sha256 `{mmlu_hash}`. Ganhas: base errada, ajustado certo; perdidas: o inverso. Detectável: a menor "
        "diferença real que este n encontraria com probabilidade de 80%, antes do ajuste.",
    ),
    "categories_note": (
        "n and hash as in {table}; a family of comparisons of its own.",
        "n e hash como na {table}; uma família de comparações própria.",
    ),
    "accuracy_caption": (
        "Execution accuracy (%), {semantics} semantics with interval, and under each of the five semantics",
        "Execution accuracy (%), semântica {semantics} com intervalo, e em cada uma das cinco semânticas",
    ),
    "hardness_caption": (
        "Execution accuracy (%) by hardness, {semantics} semantics",
        "Execution accuracy (%) por dificuldade, semântica {semantics}",
    ),
    "spider_note": (
        "n = {n} questions, the same for all rows; sha256 `{sha256}`. Intervals: {level}, Wilson.",
        "n = {n} perguntas, as mesmas em todas as linhas; sha256 `{sha256}`. Intervalos: {level}, Wilson.",
    ),
    "mmlu_caption": (
        "MMLU accuracy (%) by letter with interval; by generation, with the share of invalid answers",
        "Acurácia no MMLU (%) por letra com intervalo; por geração, com a parcela de respostas inválidas",
    ),
    "macro_note": (
        " Macro: the mean over subjects, each of the same weight.",
        " Macro: a média entre disciplinas, todas com o mesmo peso.",
    ),
    "mmlu_note": (
        "n = {n} questions, the same for all rows; sha256 `{sha256}`. Intervals: {level}, Wilson. Chance is 25%.",
        "n = {n} perguntas, as mesmas em todas as linhas; sha256 `{sha256}`. Intervalos: {level}, Wilson. O acaso é "
        "25%.",
    ),
    "errors_caption": (
        "What became of the SQL: questions per class",
        "O que aconteceu com o SQL: perguntas por classe",
    ),
    "errors_note": (
        "n = {n} questions; sha256 `{sha256}`. A class that never occurs is left out. The classes do not depend on "
        "the headline's semantics; `wrong_order_only` is right as a bag, `duplicate_only` as a set.",
        "n = {n} perguntas; sha256 `{sha256}`. Uma classe que nunca ocorre é omitida. As classes não dependem da "
        "semântica principal; `wrong_order_only` está certa como multiconjunto, `duplicate_only` como conjunto.",
    ),
    "exchange_caption": (
        "Exchange rate: pp of MMLU lost for each pp of execution accuracy gained",
        "Taxa de troca: pp de MMLU perdidos por pp de execution accuracy ganho",
    ),
    "exchange_note": (
        "n/a where the gain is not shown to differ from zero. Negative: MMLU rose. n = {spider} Spider questions "
        "({semantics} semantics, sha256 `{spider_hash}`) and {mmlu} MMLU questions (sha256 `{mmlu_hash}`).",
        "n/a onde não se mostra que o ganho difere de zero. Negativa: o MMLU subiu. n = {spider} perguntas do Spider "
        "(semântica {semantics}, sha256 `{spider_hash}`) e {mmlu} do MMLU (sha256 `{mmlu_hash}`).",
    ),
    "factors_caption": (
        "Contrasts between adapters that differ in one factor",
        "Contrastes entre adaptadores que diferem em um fator",
    ),
    "factors_note": (
        "Difference: the second value minus the first, over all pairs of adapters alike in the other factors. Spider: "
        "n = {spider}, {semantics} semantics, sha256 `{spider_hash}`. MMLU: n = {mmlu}, sha256 `{mmlu_hash}`.",
        "Diferença: o segundo valor menos o primeiro, sobre todos os pares de adaptadores iguais nos outros fatores. "
        "Spider: n = {spider}, semântica {semantics}, sha256 `{spider_hash}`. MMLU: n = {mmlu}, sha256 `{mmlu_hash}`.",
    ),
    "seeds_caption": ("Adapters over their seeds", "Adaptadores ao longo das sementes"),
    "seeds_note": (
        "Standard deviation (SD) between seeds; the interval of the mean difference holds seeds and questions. Share: "
        "of the variance of one run's difference, what the seed accounts for. Data as in the tables above.",
        "Desvio-padrão (DP) entre sementes; o intervalo da diferença média inclui sementes e perguntas. Parcela: da "
        "variância da diferença de uma execução, o que cabe à semente. Dados como nas tabelas acima.",
    ),
    "points_caption": (
        "Strengths, steps and soups against the base model",
        "Intensidades, passos e soups contra a base",
    ),
    "points_note": (
        "Exploratory: p (Holm) is adjusted for these {n} comparisons, apart from those of the adapters, whose verdicts "
        "no point here changes. The best of several points looks better than it is. n = {spider} Spider questions "
        "({semantics}, `{spider_hash}`) and {mmlu} of MMLU (`{mmlu_hash}`), {level} intervals.",
        "Exploratório: p (Holm) é ajustado para estas {n} comparações, à parte das dos adaptadores, cujos vereditos "
        "nenhum ponto daqui muda. O melhor de vários pontos parece melhor do que é. n = {spider} perguntas do Spider "
        "({semantics}, `{spider_hash}`) e {mmlu} do MMLU (`{mmlu_hash}`), intervalos de {level}.",
    ),
    "harness_caption": (
        "Tasks of lm-evaluation-harness against the base model",
        "Tarefas do lm-evaluation-harness contra a base",
    ),
    "harness_note": (
        "Differences are paired by question, with {level} intervals for questions drawn at random. p (Holm) is "
        "adjusted for these {n} comparisons, apart from all others. Every run and metric: `tables/harness.md`.",
        "As diferenças são pareadas por pergunta, com intervalos de {level} para perguntas sorteadas. p (Holm) é "
        "ajustado para estas {n} comparações, à parte das outras. Cada execução e métrica: `tables/harness.md`.",
    ),
    "shots_caption": (
        "Other numbers of solved examples in the base model's prompts",
        "Outros números de exemplos resolvidos nos prompts do modelo base",
    ),
    "shots_note": (
        "`base@shots`: the base model with so many examples. Exploratory: p (Holm) is adjusted for these {n} "
        "comparisons, apart from all others. n = {spider} Spider questions ({semantics}, `{spider_hash}`), "
        "{level} intervals.",
        "`base@shots`: o modelo base com esse número de exemplos. Exploratório: p (Holm) é ajustado para estas {n} "
        "comparações, à parte das outras. n = {spider} perguntas do Spider ({semantics}, `{spider_hash}`), "
        "intervalos de {level}.",
    ),
    "cost_caption": ("Cost of the jobs", "Custo dos jobs"),
    "cost_note": (
        "Time of the work itself, without loading. Devices: {devices}.",
        "Tempo do trabalho em si, sem o carregamento. Dispositivos: {devices}.",
    ),
    "more_first": (
        "Shown: the first {shown} of {all} rows; the rest is in `{file}`.",
        "Mostradas: as {shown} primeiras de {all} linhas; o restante está em `{file}`.",
    ),
    "more_contrasts": (
        "Shown: the {shown} of {all} rows with the least p; the rest is in `{file}`.",
        "Mostradas: as {shown} de {all} linhas com o menor p; o restante está em `{file}`.",
    ),
    "more_rows": (
        "Shown: the {shown} of {all} adapters with the highest execution accuracy; the rest is in `{file}`.",
        "Mostrados: os {shown} de {all} adaptadores com a maior execution accuracy; o restante está em `{file}`.",
    ),
    "tradeoff_caption": (
        "Learning against forgetting: execution accuracy and MMLU accuracy of the base and each adapter, with {level} "
        "Wilson intervals",
        "Aprendizado contra esquecimento: execution accuracy e acurácia no MMLU da base e de cada adaptador, com "
        "intervalos de Wilson de {level}",
    ),
    "differences_caption": (
        "Differences against the base model with {level} intervals",
        "Diferenças em relação ao modelo base com intervalos de {level}",
    ),
    "hardness_figure_caption": (
        "Execution accuracy by hardness with {level} intervals",
        "Execution accuracy por dificuldade com intervalos de {level}",
    ),
    "databases_caption": ("Execution accuracy by database", "Execution accuracy por banco de dados"),
    "error_flow_caption": (
        "Classes of error of the same questions, of the base and of the adapter",
        "Classes de erro das mesmas perguntas, da base e do adaptador",
    ),
    "loss_caption": ("Training and validation loss", "Perda no treino e na validação"),
    "seeds_figure_caption": ("Spread over the seeds of training", "Dispersão entre as sementes do treino"),
    "strength_caption": (
        "Both accuracies by adapter strength, and in the plane of the two, with {level} intervals",
        "As duas acurácias por intensidade do adaptador, e no plano das duas, com intervalos de {level}",
    ),
    "shots_figure_caption": (
        "Execution accuracy of the base model by the number of solved examples in its prompts, with {level} "
        "intervals, and that of adapters",
        "Execution accuracy do modelo base pelo número de exemplos resolvidos nos prompts, com intervalos de {level}, "
        "e a de adaptadores",
    ),
    "trajectory_caption": (
        "Both accuracies by optimizer step, and in the plane of the two, with {level} intervals",
        "As duas acurácias por passo do otimizador, e no plano das duas, com intervalos de {level}",
    ),
    # -- table heads ---------------------------------------------------------------------------------------------
    "h_split": ("Split", "Partição"),
    "h_rows": ("Rows", "Linhas"),
    "h_databases": ("Databases", "Bancos"),
    "h_hardness": ("By hardness", "Por dificuldade"),
    "h_sha256": ("sha256", "sha256"),
    "h_model": ("Model", "Modelo"),
    "h_source": ("Source", "Fonte"),
    "h_commit": ("Commit", "Commit"),
    "h_precision": ("Precision", "Precisão"),
    "h_batch": ("Batch", "Lote"),
    "h_device": ("Device", "Dispositivo"),
    "h_parameter": ("Parameter", "Parâmetro"),
    "h_value": ("Value", "Valor"),
    "h_run": ("Run", "Execução"),
    "h_adapter": ("Adapter", "Adaptador"),
    "h_steps": ("Steps", "Passos"),
    "h_trainable": ("Trainable parameters", "Parâmetros treináveis"),
    "h_loss": ("Last loss", "Última perda"),
    "h_n": ("n", "n"),
    "h_measure": ("Measure", "Medida"),
    "h_base_prompted": ("Base, own → other prompts %", "Base, prompts próprios → outros %"),
    "h_base_tuned": ("Base → tuned %", "Base → ajustado %"),
    "h_difference": ("Difference pp", "Diferença pp"),
    "h_change": ("Change %", "Mudança %"),
    "h_flips": ("Gained / lost", "Ganhas / perdidas"),
    "h_p": ("p (Holm)", "p (Holm)"),
    "h_detectable": ("Detectable pp", "Detectável pp"),
    "h_verdict": ("Verdict", "Veredito"),
    "h_right": ("Right", "Certas"),
    "h_accuracy": ("Accuracy", "Acurácia"),
    "h_all": ("All", "Todas"),
    "h_macro": ("Macro", "Macro"),
    "h_generated": ("Generated", "Gerada"),
    "h_invalid": ("Invalid", "Inválidas"),
    "h_gain": ("Gain pp", "Ganho pp"),
    "h_lost": ("MMLU lost pp", "MMLU perdido pp"),
    "h_rate": ("Rate", "Taxa"),
    "h_factor": ("Factor", "Fator"),
    "h_values": ("Values", "Valores"),
    "h_accuracies": ("Accuracies %", "Acurácias %"),
    "h_setting": ("Setting", "Configuração"),
    "h_seeds": ("Seeds", "Sementes"),
    "h_mean": ("Mean accuracy %", "Acurácia média %"),
    "h_sd": ("SD pp", "DP pp"),
    "h_mean_difference": ("Mean difference pp", "Diferença média pp"),
    "h_share": ("Seed's share %", "Parcela da semente %"),
    "h_task": ("Task", "Tarefa"),
    "h_seconds": ("Seconds", "Segundos"),
    "h_gpu_hours": ("GPU-hours", "Horas de GPU"),
    "h_rate_rows": ("Rows/s", "Linhas/s"),
    "h_rate_tokens": ("Tokens/s", "Tokens/s"),
    "h_memory": ("Peak memory GiB", "Pico de memória GiB"),
    "h_what": ("What", "O quê"),
    "h_library": ("Library", "Biblioteca"),
    "h_version": ("Version", "Versão"),
    # -- names ---------------------------------------------------------------------------------------------------
    "of_execution_accuracy": ("Execution accuracy", "Execution accuracy"),
    "of_mmlu": ("MMLU", "MMLU"),
    "in_execution_accuracy": ("execution accuracy", "execution accuracy"),
    "in_mmlu": ("MMLU", "MMLU"),
    "train": ("training", "treino"),
    "predict_spider": ("Spider", "Spider"),
    "predict_mmlu": ("MMLU", "MMLU"),
    "verdict_better": ("better", "melhor"),
    "verdict_worse": ("worse", "pior"),
    "verdict_same": ("not distinguishable", "não distinguível"),
    "verdict_higher": ("higher", "maior"),
    "verdict_lower": ("lower", "menor"),
    "local_folder": ("local folder", "pasta local"),
    "to": ("to", "a"),
    "and": ("and", "e"),
    "more": ("{n} more", "mais {n}"),
    "n_adapter": ("one adapter", "um adaptador"),
    "n_adapters": ("{n} adapters", "{n} adaptadores"),
    "n_example": ("one example", "um exemplo"),
    "n_examples": ("{n} examples", "{n} exemplos"),
    "n_base": ("one base model", "um modelo base"),
    "n_bases": ("{n} base models", "{n} modelos base"),
    "n_database": ("one database", "um banco de dados"),
    "n_databases": ("{n} databases", "{n} bancos de dados"),
    "table": ("Table {n}", "Tabela {n}"),
    "figure": ("Fig. {n}", "Fig. {n}"),
    # -- error analysis ------------------------------------------------------------------------------------------
    "failures_rule": (
        "Chosen by rule, not by taste: of each adapter, in the order of dev, the first question that its base has "
        "right and it has wrong; the first of its commonest class of error; and the hardest near miss, that is the "
        "first of the highest hardness among answers that ran and were wrong in order, columns or repeated rows "
        "alone. No question is shown twice for one adapter.",
        "Escolhidas por regra, não por gosto: de cada adaptador, na ordem do dev, a primeira pergunta que a base "
        "acerta e ele erra; a primeira de sua classe de erro mais comum; e o quase acerto mais difícil, isto é, a "
        "primeira da maior dificuldade entre as respostas que executaram e erraram só na ordem, nas colunas ou em "
        "linhas repetidas. Nenhuma pergunta aparece duas vezes para um adaptador.",
    ),
    "failures_rule_base": (
        "Chosen by rule, not by taste: of each base model, in the order of dev, the first question of its commonest "
        "class of error; and the hardest near miss, that is the first of the highest hardness among answers that ran "
        "and were wrong in order, columns or repeated rows alone.",
        "Escolhidas por regra, não por gosto: de cada modelo base, na ordem do dev, a primeira pergunta de sua classe "
        "de erro mais comum; e o quase acerto mais difícil, isto é, a primeira da maior dificuldade entre as "
        "respostas que executaram e erraram só na ordem, nas colunas ou em linhas repetidas.",
    ),
    "failures_shown": (
        "Of the {all} adapters, the {shown} with the highest execution accuracy are shown; the others stand in "
        "`report.md`.",
        "Dos {all} adaptadores, mostram-se os {shown} com a maior execution accuracy; os outros estão em `report.md`.",
    ),
    "failures_shown_one": (
        "Of the {all} adapters, the one with the highest execution accuracy is shown; the others stand in `report.md`.",
        "Dos {all} adaptadores, mostra-se o de maior execution accuracy; os outros estão em `report.md`.",
    ),
    "failures_of": (
        "{run}: {wrong} of {n} answers are wrong under {semantics} semantics, {forgotten} of them on questions that "
        "the base has right.",
        "{run}: {wrong} de {n} respostas estão erradas na semântica {semantics}, {forgotten} delas em perguntas que a "
        "base acerta.",
    ),
    "failures_of_base": (
        "{run}: {wrong} of {n} answers are wrong under {semantics} semantics.",
        "{run}: {wrong} de {n} respostas estão erradas na semântica {semantics}.",
    ),
    "no_failures": (
        "{run}: all {n} answers are right under {semantics} semantics.",
        "{run}: todas as {n} respostas estão certas na semântica {semantics}.",
    ),
    "by_forgotten": ("base right, tuned wrong", "base certa, ajustado errado"),
    "by_commonest": ("commonest class, {n} answers", "classe mais comum, {n} respostas"),
    "by_near_miss": ("hardest near miss", "quase acerto mais difícil"),
    "failure_head": ("**{id}** ({database}, {hardness}; {rule})", "**{id}** ({database}, {hardness}; {rule})"),
    "failure_question": ("**Question.** {question}", "**Pergunta.** {question}"),
    "failure_gold": ("**Gold.**", "**Referência.**"),
    "failure_answer": ("**Answer.**", "**Resposta.**"),
    "failure_why": (
        "**Why it failed.** `{error}`: {means} {message}",
        "**Por que falhou.** `{error}`: {means} {message}",
    ),
    "failure_message": ("The comparison or SQLite says: `{message}`.", "A comparação ou o SQLite diz: `{message}`."),
    "failure_empty": ("The answer is empty.", "A resposta está vazia."),
    "escaped": (
        "A character that cannot be printed here is written as `\\uXXXX`.",
        "Um caractere que não pode ser impresso aqui é escrito como `\\uXXXX`.",
    ),
    "e_ok": (
        "it gives the gold query's rows, and is wrong under the headline's semantics alone.",
        "dá as linhas da referência, e só está errada na semântica principal.",
    ),
    "e_wrong_rows": ("the query ran and gave other rows.", "a consulta executou e deu outras linhas."),
    "e_wrong_columns": (
        "the query ran; its columns are in another order, or it has another number of them.",
        "a consulta executou; suas colunas estão em outra ordem, ou em outro número.",
    ),
    "e_wrong_order_only": (
        "the rows are right, and not in the gold query's order.",
        "as linhas estão certas, mas não na ordem da referência.",
    ),
    "e_extra_or_missing_columns": (
        "it would be right with some columns left out, of it or of the gold query.",
        "estaria certa sem algumas colunas, suas ou da referência.",
    ),
    "e_duplicate_only": (
        "the rows are there, but not as often as in the gold query's result.",
        "as linhas estão lá, mas não tantas vezes quanto no resultado da referência.",
    ),
    "e_syntax_error": ("SQLite does not understand the query.", "o SQLite não entende a consulta."),
    "e_no_such_table": ("the query names a table that is not there.", "a consulta cita uma tabela que não existe."),
    "e_no_such_column": ("the query names a column that is not there.", "a consulta cita uma coluna que não existe."),
    "e_ambiguous_column": (
        "the query names a column that two of its tables have.",
        "a consulta cita uma coluna que duas de suas tabelas têm.",
    ),
    "e_other_sql_error": ("the query failed while it ran.", "a consulta falhou durante a execução."),
    "e_timeout": ("the query had no result in time.", "a consulta não teve resultado a tempo."),
    "e_too_large": (
        "the query needs more memory, rows or text than a query may.",
        "a consulta precisa de mais memória, linhas ou texto do que se permite.",
    ),
    "e_forbidden": (
        "the answer would do something other than read, or is several statements.",
        "a resposta faria algo além de ler, ou são vários comandos.",
    ),
    "e_no_sql": ("no statement could be taken out of the answer.", "nenhum comando pôde ser extraído da resposta."),
    "e_missing": ("there is no answer.", "não há resposta."),
    # -- discussion: (verdict on SQL)_(verdict on MMLU) ------------------------------------------------------------
    "group": ("{names}: {sentence}", "{names}: {sentence}"),
    "better_worse": (
        "better at SQL ({gain}) and worse on MMLU ({loss}). {rate} Which of the two weighs more is for the user of "
        "the model to say.",
        "melhor em SQL ({gain}) e pior no MMLU ({loss}). {rate} Qual dos dois pesa mais cabe a quem usa o modelo "
        "dizer.",
    ),
    "better_same": (
        "better at SQL ({gain}), and no change of MMLU is shown ({loss}). That does not show that nothing was lost: "
        "the intervals reach down to {low} pp.",
        "melhor em SQL ({gain}), e não se mostra mudança no MMLU ({loss}). Isso não mostra que nada foi perdido: os "
        "intervalos chegam a {low} pp.",
    ),
    "better_better": (
        "better at SQL ({gain}) and on MMLU ({loss}): these data show no price for the gain.",
        "melhor em SQL ({gain}) e no MMLU ({loss}): estes dados não mostram um preço pelo ganho.",
    ),
    "same_worse": (
        "worse on MMLU ({loss}), with no gain at SQL shown ({gain}): nothing in these data speaks for it.",
        "pior no MMLU ({loss}), sem ganho em SQL mostrado ({gain}): nada nestes dados fala a seu favor.",
    ),
    "same_same": (
        "not distinguishable from the base, neither at SQL ({gain}) nor on MMLU ({loss}): neither a gain nor a loss "
        "is shown, nor that there is none.",
        "não distinguível da base, nem em SQL ({gain}) nem no MMLU ({loss}): não se mostra ganho nem perda, nem que "
        "não existam.",
    ),
    "same_better": (
        "better on MMLU ({loss}), with no change at SQL shown ({gain}).",
        "melhor no MMLU ({loss}), sem mudança em SQL mostrada ({gain}).",
    ),
    "worse_worse": (
        "worse at SQL ({gain}) and on MMLU ({loss}): worse than its base in both.",
        "pior em SQL ({gain}) e no MMLU ({loss}): pior que a base em ambos.",
    ),
    "worse_same": (
        "worse at SQL ({gain}), the task it was trained for, with no change of MMLU shown ({loss}).",
        "pior em SQL ({gain}), a tarefa para a qual foi treinado, sem mudança no MMLU mostrada ({loss}).",
    ),
    "worse_better": (
        "worse at SQL ({gain}), the task it was trained for, and better on MMLU ({loss}).",
        "pior em SQL ({gain}), a tarefa para a qual foi treinado, e melhor no MMLU ({loss}).",
    ),
    "rate_one": (
        "For each pp gained, {rate} pp of MMLU are lost (interval {low} to {high}).",
        "Para cada pp ganho, perdem-se {rate} pp de MMLU (intervalo {low} a {high}).",
    ),
    "rate_many": (
        "For each pp gained, {low} to {high} pp of MMLU are lost (Table {table}).",
        "Para cada pp ganho, perdem-se de {low} a {high} pp de MMLU (Tabela {table}).",
    ),
    "semantics_same": (
        "The choice of semantics does not change the sign of any of these differences at SQL.",
        "A escolha da semântica não muda o sinal de nenhuma dessas diferenças em SQL.",
    ),
    "semantics_differ": (
        "The choice of semantics changes the sign of the difference at SQL of {names}: under one of the five it "
        "gains, under another it loses.",
        "A escolha da semântica muda o sinal da diferença em SQL de {names}: em uma das cinco ganha, em outra perde.",
    ),
    "factor_found": (
        "**{axis}**, {high} against {low}: {measure} is {verdict}, {difference} ({p}){model}.",
        "**{axis}**, {high} em vez de {low}: {measure} é {verdict}, {difference} ({p}){model}.",
    ),
    "factor_of_model": (", with {model}", ", com {model}"),
    "factors_none_found": (
        "None of the {n} contrasts between adapters that differ in one factor is distinguishable at this n. That does "
        "not show that the factors do not matter: the contrasts would find true differences of {low} pp or more four "
        "times in five, the weakest of them of {high} pp.",
        "Nenhum dos {n} contrastes entre adaptadores que diferem em um fator é distinguível com este n. Isso não "
        "mostra que os fatores não importam: os contrastes encontrariam diferenças reais de {low} pp ou mais em "
        "quatro de cinco vezes, o mais fraco deles de {high} pp.",
    ),
    "factors_some_found": (
        "Of {n} contrasts between adapters that differ in one factor, {found} are distinguishable:",
        "De {n} contrastes entre adaptadores que diferem em um fator, são distinguíveis {found}:",
    ),
    "factors_rest": (
        "The others are not distinguishable at this n ({names}); that does not show that they are nil.",
        "Os outros não são distinguíveis com este n ({names}); isso não mostra que sejam nulos.",
    ),
    "factor_name": ("{axis} {low} against {high} in {measure}", "{axis} {low} em vez de {high} em {measure}"),
    "factors_none": (
        "No factor was given two values that adapters alike in all else could be compared on, so this study cannot "
        "say which factor matters.",
        "Nenhum fator teve dois valores em que se pudessem comparar adaptadores iguais em todo o resto; este estudo "
        "não pode dizer qual fator importa.",
    ),
    "factors_seeds": (
        "Adapters of one setting that differ in the seed alone have a standard deviation of {low} to {high} pp: a "
        "difference between single adapters below that is no evidence of a factor.",
        "Adaptadores de uma mesma configuração que diferem só na semente têm desvio-padrão de {low} a {high} pp: uma "
        "diferença menor entre adaptadores isolados não é evidência de um fator.",
    ),
    "indistinct_some": (
        "{same} of the {n} headline comparisons are not distinguishable at this n ({names}). At {spider} Spider and "
        "{mmlu} MMLU questions the least true difference found four times in five lies between {low} and {high} pp; a "
        "smaller one would mostly be missed.",
        "{same} das {n} comparações principais não são distinguíveis com este n ({names}). Com {spider} perguntas do "
        "Spider e {mmlu} do MMLU, a menor diferença real encontrada em quatro de cinco vezes fica entre {low} e "
        "{high} pp; uma menor passaria na maioria das vezes.",
    ),
    "indistinct_one": (
        "1 of the {n} headline comparisons is not distinguishable at this n ({names}). At {spider} Spider and {mmlu} "
        "MMLU questions the least true difference found four times in five is {low} pp there; a smaller one would "
        "mostly be missed.",
        "1 das {n} comparações principais não é distinguível com este n ({names}). Com {spider} perguntas do Spider e "
        "{mmlu} do MMLU, a menor diferença real encontrada em quatro de cinco vezes é ali de {low} pp; uma menor "
        "passaria na maioria das vezes.",
    ),
    "indistinct_none": (
        "Each of the {n} headline comparisons is distinguishable at this n.",
        "Cada uma das {n} comparações principais é distinguível com este n.",
    ),
    "indistinct_categories": (
        "Of the {n} comparisons of single MMLU categories, {same} are not distinguishable; the least detectable "
        "differences there reach {high} pp, so that category by category this study sees only large changes.",
        "Das {n} comparações de categorias do MMLU, {same} não são distinguíveis; as menores diferenças detectáveis "
        "ali chegam a {high} pp, de modo que categoria por categoria este estudo só vê mudanças grandes.",
    ),
    "at_chance": (
        "The base is not shown to be above chance on {names}: no percent change is given there, and a fall could not "
        "be seen.",
        "Não se mostra que a base esteja acima do acaso em {names}: ali não se dá mudança percentual, e uma queda não "
        "poderia ser vista.",
    ),
    # -- limits --------------------------------------------------------------------------------------------------
    "limit_execution": (
        "Execution on one database a question: a wrong query may give the right rows by chance, and a right one may "
        "order its columns otherwise and count as wrong, but under semantics that allow for it.",
        "Execução em um banco por pergunta: uma consulta errada pode dar as linhas certas por acaso, e uma certa pode "
        "ordenar as colunas de outro modo e contar como errada, salvo em semânticas que o permitem.",
    ),
    "limit_observed": (
        "Adapters were compared with their base and with each other as they are; why a model answers as it does is "
        "not measured.",
        "Os adaptadores foram comparados com a base e entre si como são; por que um modelo responde como responde não "
        "é medido.",
    ),
    "limit_clusters": (
        "With few databases or subjects, intervals speak of questions on these ones, not of others.",
        "Com poucos bancos ou disciplinas, os intervalos falam de perguntas sobre estes, não sobre outros.",
    ),
    "limit_prompt": (
        "A question is asked in one wording and answered greedily: the variation over prompts and sampling is not "
        "measured.",
        "Uma pergunta é feita com uma só redação e respondida de forma gulosa: a variação entre prompts e na "
        "amostragem não é medida.",
    ),
    "limit_sampled": (
        "A question is asked in one wording and answered once, with sampling: the variation over prompts and draws is "
        "not measured.",
        "Uma pergunta é feita com uma só redação e respondida uma vez, com amostragem: a variação entre prompts e "
        "sorteios não é medida.",
    ),
    "limit_mmlu": (
        "MMLU is a sample of the benchmark in the named subjects: its accuracy is no estimate of the whole.",
        "O MMLU é uma amostra do benchmark nas disciplinas citadas: sua acurácia não estima o todo.",
    ),
    "limit_seed": (
        "Each adapter was trained once, with one seed: differences between adapters hold the chance of training too, "
        "which the intervals do not.",
        "Cada adaptador foi treinado uma vez, com uma semente: as diferenças entre adaptadores contêm também o acaso "
        "do treino, que os intervalos não contêm.",
    ),
    # -- reproducibility -----------------------------------------------------------------------------------------
    "reproduce_text": (
        "FILE is the study's configuration, `config.yaml` or a file of `studies/`. The first command shows the plan, "
        "the second runs it; what is done already stays. On one machine every run gives the same bits; another kind "
        "of processor rounds differently, so that a few answers may differ.",
        "FILE é a configuração do estudo, `config.yaml` ou um arquivo de `studies/`. O primeiro comando mostra o "
        "plano, o segundo o executa; o que já foi feito permanece. Em uma mesma máquina toda execução dá os mesmos "
        "bits; outro tipo de processador arredonda de outro modo, e algumas respostas podem diferir.",
    ),
    "seeds_text": (
        "Seeds: splits {splits}, MMLU draw {mmlu}, training {training}{answers}.",
        "Sementes: partições {splits}, sorteio do MMLU {mmlu}, treino {training}{answers}.",
    ),
    "seeds_answers": (", sampling of answers {seed}", ", amostragem das respostas {seed}"),
    "hashes_caption": (
        "Inputs and artefacts: the first {digits} of the 64 digits of each sha256",
        "Entradas e artefatos: os {digits} primeiros dos 64 dígitos de cada sha256",
    ),
    "versions_caption": ("Software", "Software"),
    "w_model": ("Model {name}", "Modelo {name}"),
    "w_archive": ("Spider archive", "Arquivo do Spider"),
    "w_mmlu": ("MMLU archive", "Arquivo do MMLU"),
    "w_split": ("Split {name}", "Partição {name}"),
    "w_suite": ("MMLU suite", "Suíte do MMLU"),
    "w_spider_prompts": ("Spider prompts, {model}", "Prompts do Spider, {model}"),
    "w_mmlu_prompts": ("MMLU prompts, {model}", "Prompts do MMLU, {model}"),
    "w_own_prompts": ("Spider prompts of {variant}, {model}", "Prompts do Spider de {variant}, {model}"),
    "w_adapter": ("Adapter {name}", "Adaptador {name}"),
    "different_devices": (
        "Not all jobs ran with the same versions or on the same kind of device.",
        "Nem todos os jobs rodaram com as mesmas versões ou no mesmo tipo de dispositivo.",
    ),
}

_MARKUP = re.compile(r"(\*\*.+?\*\*|(?<!\*)\*[^*]+?\*(?!\*)|`[^`]+`)")


class Language:
    """Sentences and numbers in one language; called with a key of `TEXTS` and what is to be filled in."""

    def __init__(self, name: str):
        self.name, self.index = name, LANGUAGES.index(name)

    def __call__(self, key: str, /, **values: str | int | Spans) -> Spans:
        """Return the sentence `key` as spans. A value that is spans keeps its kinds, any other has those around it."""
        spans: Spans = []
        for part in _MARKUP.split(TEXTS[key][self.index]):
            if part.startswith("`"):
                spans.append(("code", part.strip("`").format(**values)))
                continue
            kind = "strong" if part.startswith("**") else "emph" if part.startswith("*") else "text"
            for literal, field, _, _ in Formatter().parse(part.strip("*")):
                spans.append((kind, literal))
                if field is not None:
                    value = values[field]
                    spans += value if isinstance(value, list) else [(kind, str(value))]
        return merged(spans)

    def plain(self, key: str, /, **values: str | int) -> str:
        """Return the sentence `key` without markup."""
        return "".join(text for _, text in self(key, **values))

    def count(self, key: str, n: int) -> str:
        """Return a number with its noun, by the keys `key` for one and `key`s for another number."""
        return self.plain(key) if n == 1 else self.plain(f"{key}s", n=self.whole(n))

    def whole(self, n: int) -> str:
        """Return a count with its thousands apart."""
        return f"{int(n):,}" if self.name == "en" else f"{int(n):,}".replace(",", ".")

    def number(self, value: float, digits: int = 1) -> str:
        """Return a number with a true minus sign; n/a for one that is missing."""
        if pd.isna(value):
            return "n/a"
        text = f"{value:.{digits}f}"
        text = text.removeprefix("-") if not float(text) else text.replace("-", "\N{MINUS SIGN}")
        return text if self.name == "en" else text.replace(".", ",")

    def signed(self, value: float, digits: int = 1) -> str:
        """Return a number with its sign; zero has none."""
        text = self.number(value, digits)
        return f"+{text}" if not pd.isna(value) and value > 0 and any(c in "123456789" for c in text) else text

    def p(self, value: float) -> str:
        """Return a p value as journals print it."""
        if pd.isna(value):
            return "n/a"
        return ("< " if value < 0.001 else "") + self.number(max(value, 0.001), 3) if value < 0.9995 else "1"

    def p_is(self, value: float) -> str:
        """Return a p value in a sentence."""
        text = self.p(value)
        return f"p {text}" if text.startswith("<") else f"p = {text}"

    def percent(self, level: float) -> str:
        """Return a confidence level such as 95%."""
        return f"{100 * level:g}%".replace(".", "." if self.name == "en" else ",")

    def change(self, value: float, low: float, high: float) -> str:
        """Return a difference in a sentence: `+1.2 pp, -0.5 to +2.9`, without the interval where there is none."""
        if pd.isna(low) or pd.isna(high):
            return self.plain("pp", value=self.signed(value))
        return self.plain("short_interval", value=self.signed(value), low=self.signed(low), high=self.signed(high))

    def interval(self, value: float, low: float, high: float, sign: bool = False, digits: int = 1) -> str:
        """Return `value (low to high)`, without the interval where there is none."""
        write = self.signed if sign else self.number
        if pd.isna(low) or pd.isna(high):
            return write(value, digits)
        return f"{write(value, digits)} ({write(low, digits)} {self.plain('to')} {write(high, digits)})"

    def listed(self, names: Sequence[Spans], most: int = 4) -> Spans:
        """Return names as a list in a sentence, the first `most` of them and how many more there are."""
        shown = list(names) if len(names) <= most else [*names[:most], self("more", n=len(names) - most)]
        spans: Spans = []
        for number, name in enumerate(shown):
            last = number == len(shown) - 1
            spans += [("text", f" {self.plain('and')} " if last else ", ")] if number else []
            spans += name
        return merged(spans)


def merged(spans: Iterable[Span]) -> Spans:
    """Return spans without empty ones, neighbours of one kind as one."""
    result: Spans = []
    for kind, text in spans:
        if text and result and result[-1][0] == kind != "code":
            result[-1] = (kind, result[-1][1] + text)
        elif text:
            result.append((kind, text))
    return result


def joined(*sentences: Spans) -> Spans:
    """Return sentences as one paragraph."""
    spans: Spans = []
    for sentence in sentences:
        spans += ([("text", " ")] if spans and sentence else []) + sentence
    return merged(spans)


def text(value: object) -> Spans:
    """Return a value as it is."""
    return merged([("text", str(value))])


def code(value: object) -> Spans:
    """Return a value as code."""
    return [("code", str(value))]


def span_text(spans: Iterable[Span] | Mapping) -> str:
    """Return what spans say, without their kinds."""
    return "".join(text for _, text in spans)
