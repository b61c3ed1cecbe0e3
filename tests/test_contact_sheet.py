"""The page of photographs: order, names that stay text, pictures inside."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html import unescape
from pathlib import Path

import numpy as np
from PIL import Image

from keras_cnn import contact_sheet, prediction
from keras_cnn.__main__ import main


def test_photographs_stand_by_class_and_certainty(tmp_path):
    names = ["a.png", '"><script>b.png', "c.png", "d.png", "gone.png"]
    paths = [tmp_path / name for name in names]
    for path, colour in zip(paths[:4], ("red", "green", "blue", "white"), strict=True):
        Image.new("RGB", (300, 200), colour).save(path)
    shares = np.array([[0.1, 0.6, 0.3], [0, 0.9, 0.1], [0, 0.2, 0.8], [0.2, 0.7, 0.1], [0, 1, 0]])
    found = prediction.Predictions(paths, ["x", "<b>y", "z"], shares, [(Path("e<i>"), "no\nimage")])
    contact_sheet.write(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    listed = [unescape(name) for name in re.findall(r'class="file"><bdi>(.*?)</bdi>', page)]
    assert listed == [str(paths[place]) for place in (4, 1, 3, 0, 2)]
    assert re.findall(r"(\d+\.\d%) <span", page) == ["100.0%", "90.0%", "70.0%", "60.0%", "80.0%"]
    assert "<script" not in page and "<b>y" not in page and "<i>" not in page
    assert r"no\nimage" in page and 'src="http' not in page and 'name="viewport"' in page
    pictures = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        for content in re.findall(r"data:image/jpeg;base64,([^\"]*)", page)
    ]
    colours = [(0, 128, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255)]
    for picture, colour in zip(pictures, colours, strict=True):
        np.testing.assert_allclose(picture[64, 64], colour, atol=4)
    contact_sheet.write(found, tmp_path / "page.html", most=3)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert page.count('class="file"') == 3 and "The 2 most certain of them" in page


def test_answers_not_to_be_relied_on_stand_apart_and_are_marked_in_words(tmp_path):
    shares = np.array([[0.9, 0.1], [0.4, 0.6], [0.55, 0.45], [0.2, 0.8], [0.99, 0.01]])
    unsure, strange = np.array([0, 1, 1, 0, 0], bool), np.array([0, 0, 0, 0, 1], bool)
    paths = [tmp_path / f"{place}.png" for place in range(5)]
    found = prediction.Predictions(paths, ["a", "<b>"], shares, [], unsure, strange)
    contact_sheet.write(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    parts = dict(
        zip(("top", *re.findall(r'<h2 id="([\w-]+)"', page)), page.split("<h2"), strict=True)
    )
    listed = {name: re.findall(r"(\d)\.png", part) for name, part in parts.items()}
    expected = {"class-0": ["0"], "class-1": ["3"], "unsure": ["1", "2"], "strange": ["4"]}
    assert listed == {"top": [], **expected}
    assert parts["unsure"].count("<strong>unsure</strong>: ") == 2
    assert "<bdi>&lt;b&gt;</bdi> 60.0%, <bdi>a</bdi> 40.0%" in parts["unsure"]
    assert "<strong>nothing of the kind</strong>: <bdi>a</bdi> 99.0%" in parts["strange"]
    assert '<a href="#unsure">unsure</a>, 2 of 5; <a href="#strange">nothing' in parts["top"]
    everything = dataclasses.replace(found, unsure=np.ones(5, bool), strange=np.zeros(5, bool))
    contact_sheet.write(everything, tmp_path / "page.html")
    assert "class-0" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_room_is_shared_out():
    for counts, most, room in (([5, 4], 20, 5), ([1, 9], 6, 5), ([9, 9, 9], 6, 2), ([3, 3], 1, 1)):
        assert contact_sheet._room(counts, most) == room


def test_another_name_is_refused(tmp_path, capsys):
    assert main(["predict", "model.keras", str(tmp_path), f"--page={tmp_path / 'a.txt'}"]) == 2
    assert "ends in .html" in capsys.readouterr().err
