"""Chat templates of models that think, with the structure of the real ones."""

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
}
