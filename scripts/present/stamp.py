"""What must stand under every result of a study whose method is known to be defective."""

from collections.abc import Sequence


def stamp(known_defects: Sequence[str], accept_defect: Sequence[str]) -> str:
    """Return what must stand under every result of a study with known defects; nothing for one without."""
    text = ""
    if accept_defect:
        text += (
            f"\n**This study runs although its audit may fail: {', '.join(accept_defect)}. What the audit found stands "
            "in runs/<model>/audit_labels.json.**\n"
        )
    if known_defects:
        text += "\nKnown defects of this method:\n\n" + "".join(f"* {sentence}\n" for sentence in known_defects)
    return text
