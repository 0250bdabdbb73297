"""5,000 real and nasty texts, and the ids that transformers gives them with a tokenizer of each kind.

The texts follow from a seed and from what stands here. The tokenizers, small ones, lie in `id_cases.tar.xz`; the
answers are a digest of each 250 texts in `id_cases.json`. In an environment with transformers and sentencepiece (they
were of transformers 5.23.0), the first line writes the answers anew, and the second prints texts whose ids differ:

    PYTHONPATH=. python tests/encoding/id_cases.py
    PYTHONPATH=. python tests/encoding/id_cases.py --compare KIND
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tarfile
import tempfile
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

FILE, FOLDERS = (Path(__file__).with_suffix(suffix) for suffix in (".json", ".tar.xz"))
COUNT, PAIRS, CHUNK = 5000, 1000, 250
LENGTH = 64  # of pairs; half of what is left of it is no whole number
CHARSMAP = "the charsmap of sentencepiece.bpe.model"  # in a tokenizer.json, for the 300,000 characters
# The first article of the Universal Declaration of Human Rights, or a part of it.
REAL = """
All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience.
人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心，并应以兄弟关系的精神相对待。
人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心，並應以兄弟關係的精神互相對待。
すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。
모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.
Все люди рождаются свободными и равными в своём достоинстве и правах.
Alle Menschen sind frei und gleich an Würde und Rechten geboren.
Tous les êtres humains naissent libres et égaux en dignité et en droits.
Todos los seres humanos nacen libres e iguales en dignidad y derechos.
Todos os seres humanos nascem livres e iguais em dignidade e em direitos.
Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền.
Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.
Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. İnsan
Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.
يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.
כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם.
सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता और समानता प्राप्त है।
มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ
Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.
""".strip().split("\n")
TYPED = [
    "iPhone15 Pro Max 256GB ¥7,999.00", "https://example.com/a?b=c&d=%20#e", "foo_bar(x, y=[1, 2]) == {'k': -3.14e-10}",
    "2024-05-01 08:30", "don't they're I'll WE'VE o'clock", "e-mail: a.b@c.org", "C++/C# vs. .NET", "No. 1 (of 10)",
    "\t- item one\r\n\t- item two\n\n", "  spaces   in    runs     here  ", "...!!??;;", "x" * 120, "哈" * 40, "1" * 30,
]  # fmt: skip
# Without U+85, a space to the library's fast tokenizers and a character to SentencePiece, as it is here.
NASTY = [(0x20, 0x7E), (0xC0, 0xD6), (0xE0, 0xF6), (0x100, 0x148), (0x38E, 0x3A1), (0x3A3, 0x3CE), (0x410, 0x44F),
         (0x5D0, 0x5EA), (0x620, 0x64A), (0x905, 0x939), (0xE01, 0xE30), (0x300, 0x345), (0x3041, 0x3096),
         (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3), (0xFF21, 0xFF3A), (0xFF10, 0xFF19), (0x2000, 0x200F),
         (0x2010, 0x2027), (0x3001, 0x3003), (0x20000, 0x2A6D6), (0x9, 0xD),
         (0x0, 0x1F), (0x7F, 0x84), (0x86, 0xFF), (0x180, 0x24F), (0x2028, 0x206F), (0x20A0, 0x21FF),
         (0x2460, 0x24FF), (0x3000, 0x303F), (0x3131, 0x318E), (0x32D0, 0x33FF), (0x1100, 0x11FF), (0x1E00, 0x1FFF),
         (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFE00, 0xFE0F), (0xFF01, 0xFFEF), (0xE000, 0xE010), (0xFFF9, 0xFFFF),
         (0x1D400, 0x1D7FF), (0x1F1E6, 0x1F1FF), (0x1F300, 0x1F64F), (0x1F3FB, 0x1F3FF), (0xE0020, 0xE007F),
         (0x900, 0x97F), (0xE01, 0xE4F), (0x590, 0x5C7), (0x600, 0x6FF)]  # fmt: skip


def texts() -> list[str]:
    """Return the texts."""
    draw, real = random.Random(1), [*REAL, *TYPED]

    def part() -> str:
        text = draw.choice(real)
        start, count = draw.randrange(len(text)), draw.randint(1, 60)
        return text[start : start + count] if draw.random() < 0.5 else text

    def nasty() -> str:
        first, last = draw.choice(NASTY)
        return "".join(chr(draw.randint(first, last)) for _ in range(draw.choice((1, 1, 1, 2, 5))))

    found = []
    for _ in range(COUNT):
        parts = [draw.choice((part, nasty))() for _ in range(draw.choice((0, 1, 1, 2, 3, 6)))]
        found.append(draw.choice(("", " ", " ", "  ", "\u3000")).join(parts))
    return found


def digests(rows: Iterable[Any]) -> list[str]:
    """Return a digest of the ids of each `CHUNK` texts."""
    listed = [np.asarray(row, "<i4").tobytes() for row in rows]
    chunks = (listed[start : start + CHUNK] for start in range(0, len(listed), CHUNK))
    return [hashlib.sha256(b"".join(b"%d:%b" % (len(r), r) for r in chunk)).hexdigest()[:12] for chunk in chunks]


def unpack(target: Path) -> None:
    """Write the folders of all tokenizers into `target`."""
    from paddle_ranker.model.hugging_face.library_tokenizer import read_sentencepiece

    with tarfile.open(FOLDERS) as archive:
        for entry in archive.getmembers():
            content = archive.extractfile(entry)
            assert content is not None
            (target / entry.name).parent.mkdir(parents=True, exist_ok=True)
            (target / entry.name).write_bytes(content.read())
    rules = read_sentencepiece(target / "sentencepiece" / "sentencepiece.bpe.model").normalizer_spec
    for path in target.glob("*/tokenizer.json"):
        text = path.read_text(encoding="utf-8").replace(CHARSMAP, b64encode(rules.precompiled_charsmap).decode("ascii"))
        path.write_text(text, encoding="utf-8")


def main() -> None:
    """Write the answers, or compare ids of one kind."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        unpack(folder)
        if sys.argv[1:2] == ["--compare"]:
            _compare(sys.argv[2], folder / sys.argv[2])
            return
        answers = {path.name: _answers(path) for path in sorted(folder.iterdir())}
    said = {kind: [" ".join(digests(rows)) for rows in found] for kind, found in answers.items()}
    FILE.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")


def _answers(folder: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Return transformers' ids of all texts, without special tokens, and of the first, each with the next as a pair."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    chosen = texts()
    plain = tokenizer(chosen, add_special_tokens=False, verbose=False).input_ids
    pairs = tokenizer(chosen[:PAIRS], chosen[1 : PAIRS + 1], truncation=True, max_length=LENGTH).input_ids
    return plain, pairs


def _compare(kind: str, folder: Path) -> None:
    """Print texts that get other ids here than by transformers, the shortest first."""
    from paddle_ranker.model.families import brought_tokenizer, family_of

    chosen = texts()
    ids, lengths = brought_tokenizer(folder, family_of(FAMILIES[kind])).tokenizer().encode(chosen)
    ours = [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]
    differing = [row for row in zip(chosen, ours, _answers(folder)[0]) if row[1] != row[2]]
    print(f"{kind}: {len(differing)} of {len(chosen)} texts differ")
    for text, here, there in sorted(differing, key=lambda row: len(row[0]))[:20]:
        print(f"  {text!a}\n    here {here}\n    there {there}")


# What `family_of` takes, by the folder's name.
FAMILIES = {
    "sentencepiece": "xlm-roberta", "xlm-roberta": "xlm-roberta", "deberta-v2": "deberta-v2", "merges": "roberta",
    "modernbert": "modernbert", "electra": "electra", "bert": "bert", "bert-cased": "bert",
}  # fmt: skip


if __name__ == "__main__":
    main()
