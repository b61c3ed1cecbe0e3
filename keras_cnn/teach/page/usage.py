"""How to use the model, and how to teach it better."""

from __future__ import annotations

from keras_cnn import pages
from keras_cnn.errors import shell_line
from keras_cnn.teach.page.wording import Section, paragraph
from keras_cnn.teach.taught import Taught


def section(taught: Taught) -> Section:
    """Commands and Python with the paths of this model."""
    model, folder = str(taught.model_file), str(taught.folder)
    commands = [
        ["predict", model, "photo.jpg"],
        ["evaluate", model, f"--data={folder}"],
        ["export", model, "--format=onnx"],
    ]
    lines = "\n".join(shell_line(["python", "-m", "keras_cnn", *words]) for words in commands)
    python = (
        f"from keras_cnn import predict\nfound = predict({model!a}, ['photo.jpg'])\n"
        "print(found.best(3))"
    )
    body = "\n".join(
        [
            paragraph("Classify photographs, test the model on a folder, take it elsewhere:"),
            _block(lines),
            paragraph("In Python:"),
            _block(python),
            paragraph(
                "To make it better, put more photographs into the folders of their classes, or "
                "move those with a wrong label, and teach again:"
            ),
            _block(taught.command),
        ]
    )
    return Section("use", "How to use it", "use", body)


def _block(lines: str) -> str:
    """Lines of code, which break between words where the page is narrow."""
    return f"<pre>{''.join(map(pages.code, lines.splitlines()))}</pre>"
