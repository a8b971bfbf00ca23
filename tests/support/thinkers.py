"""Chat templates with the structure of the real ones: of models that think, and of some that do not."""

_HEAD = "{% for message in messages %}"
_CHATML = "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
# As Qwen3: a switch that ends the thought in the prompt, and an empty thought before the last answer.
QWEN3 = (
    _HEAD + "{% if message.role == 'assistant' and loop.last %}"
    "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' + message.content + '<|im_end|>\n' }}"
    "{% else %}" + _CHATML + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    "{% endif %}"
)
# As Qwen3 Thinking 2507: no switch, the prompt opens the thought.
QWEN3_ALWAYS = QWEN3.replace(
    "{% if enable_thinking is defined and enable_thinking is false %}", "{% if true %}"
).replace("{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}", "{{ '<think>\n' }}{% endif %}{% endif %}")
# As the R1 distills: no switch, the prompt opens a thought that a conversation never has.
R1 = (
    "{{ bos_token }}" + _HEAD + "{% if message.role == 'user' %}{{ '<|User|>' + message.content }}{% endif %}"
    "{% if message.role == 'system' %}{{ message.content }}{% endif %}"
    "{% if message.role == 'assistant' %}{{ '<|Assistant|>' + message.content.split('</think>')[-1] + eos_token }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|Assistant|><think>\n' }}{% endif %}"
)
# As SmolLM3: thinks unless told otherwise, says so and today's date in its own system turn.
SMOLLM3 = (
    "{% set mode = '/think' if enable_thinking is not defined or enable_thinking else '/no_think' %}"
    "{{ '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') + '\nReasoning Mode: ' + mode + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '<|im_end|>\n' }}"
    + _HEAD
    + "{% if message.role == 'user' %}{{ '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}"
    "{% elif message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{{ message.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if mode == '/no_think' %}{{ '<think>\n\n</think>\n' }}{% endif %}{% endif %}"
)
# As gpt-oss: channels, the date, and another end of the last turn than of those before.
GPT_OSS = (
    "{{ '<|start|>system<|message|>Current date: ' + strftime_now('%Y-%m-%d') + '<|end|>' }}"
    + _HEAD
    + "{% if message.role == 'assistant' %}{{ '<|start|>assistant<|channel|>final<|message|>' + message.content }}"
    "{{ '<|return|>' if loop.last else '<|end|>' }}{% elif message.role == 'system' %}"
    "{{ '<|start|>developer<|message|>' + message.content + '<|end|>' }}{% else %}"
    "{{ '<|start|>user<|message|>' + message.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
# As Gemma 4 (26B, 31B): a channel for thoughts, empty in the prompt of an answer at once, and in no conversation.
GEMMA4 = (
    "{{ bos_token }}{% set system = messages[0].role == 'system' %}{% set thinks = enable_thinking is defined and "
    "enable_thinking %}{% if system or thinks %}{{ '<|turn>system\n' + ('<|think|>\n' if thinks else '') }}"
    "{{ messages[0].content | trim if system else '' }}{{ '<turn|>\n' }}{% endif %}"
    "{% for message in messages %}{% if message.role != 'system' %}"
    "{{ '<|turn>' + ('model' if message.role == 'assistant' else 'user') + '\n' }}"
    "{{ message.content | trim + '<turn|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}"
    "{% if not thinks %}{{ '<|channel>thought\n<channel|>' }}{% endif %}{% endif %}"
)
# As GLM 4.5: an empty thought in one line, and no end of a turn but the name of the next one.
GLM = (
    "[gMASK]<sop>"
    + _HEAD
    + "{% if message.role == 'assistant' %}{{ '<|assistant|>\n<think></think>\n' + message.content | trim }}"
    "{% else %}{{ '<|' + message.role + '|>\n' + message.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '\n<think></think>' }}{% endif %}{% endif %}"
)
# As DeepSeek V3.1: the prompt opens a thought or closes one that it has not opened; conversations have the latter.
DEEPSEEK = (
    "{{ bos_token }}" + _HEAD + "{% if message.role == 'system' %}{{ message.content }}"
    "{% elif message.role == 'user' %}{{ '<|User|>' + message.content }}"
    "{% else %}{{ '<|Assistant|></think>' + message.content + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|>' + ('<think>' if thinking else '</think>') }}{% endif %}"
)
# As Granite 3, Command R and Phi 3.
GRANITE = (
    _HEAD + "{{ '<|start_of_role|>' + message.role + '<|end_of_role|>' + message.content + '<|end_of_text|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_of_role|>assistant<|end_of_role|>' }}{% endif %}"
)
COHERE = (
    "{{ bos_token }}{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}"
    + _HEAD
    + "{{ '<|START_OF_TURN_TOKEN|><|' + names[message.role] + '_TOKEN|>' + message.content | trim"
    " + '<|END_OF_TURN_TOKEN|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>' }}{% endif %}"
)
PHI3 = (
    _HEAD + "{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)


def _kind(template: str, special: list[str], eos: str, bos: str | None = None) -> dict:
    return {
        "template": template,
        "special": special,
        "bos": bos,
        "eos": eos,
        "pad": special[0],
        "generation_eos": [eos],
    }


_IM = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
THINKERS = {
    "qwen3": _kind(QWEN3, _IM, "<|im_end|>"),
    "qwen3_always": _kind(QWEN3_ALWAYS, _IM, "<|im_end|>"),
    "r1": _kind(R1, ["<pad>", "<bos>", "<eos>", "<|User|>", "<|Assistant|>", "<think>", "</think>"], "<eos>", "<bos>"),
    "smollm3": _kind(SMOLLM3, _IM, "<|im_end|>"),
    "gpt_oss": _kind(
        GPT_OSS, ["<|pad|>", "<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>"], "<|return|>"
    ),
    "gemma4": _kind(
        GEMMA4,
        ["<pad>", "<eos>", "<bos>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>"],
        "<turn|>",
        "<bos>",
    ),
    "glm": _kind(
        GLM,
        ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<think>", "</think>"],
        "<|user|>",
    ),
    "deepseek": _kind(
        DEEPSEEK,
        ["<pad>", "<bos>", "<eos>", "<|User|>", "<|Assistant|>", "<think>", "</think>"],
        "<eos>",
        "<bos>",
    ),
}
PLAIN = {
    "granite": _kind(
        GRANITE, ["<|pad|>", "<|end_of_text|>", "<|start_of_role|>", "<|end_of_role|>"], "<|end_of_text|>"
    ),
    "cohere": _kind(
        COHERE,
        [
            "<PAD>",
            "<BOS_TOKEN>",
            "<|START_OF_TURN_TOKEN|>",
            "<|END_OF_TURN_TOKEN|>",
            "<|SYSTEM_TOKEN|>",
            "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>",
        ],
        "<|END_OF_TURN_TOKEN|>",
        "<BOS_TOKEN>",
    ),
    "phi3": _kind(
        PHI3,
        ["<|placeholder|>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
        "<|endoftext|>",
    ),
}
