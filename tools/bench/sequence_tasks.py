"""Tasks of an encoder and a decoder that a small model learns in minutes: of text, and of sounds made on the spot."""

import json
import random
import re
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)

_T5: dict[str, Any] = {"d_model": 512, "d_kv": 64, "d_ff": 1024, "num_layers": 8, "num_decoder_layers": 8}
_T5 |= {
    "num_heads": 6,
    "vocab_size": 32128,
    "feed_forward_proj": "gated-gelu",
    "decoder_start_token_id": 0,
    "tie_word_embeddings": False,
}
_WHISPER: dict[str, Any] = {"d_model": 384, "encoder_layers": 4, "decoder_layers": 4, "num_mel_bins": 80}
_WHISPER |= {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "vocab_size": 51865}
_WHISPER |= {"encoder_ffn_dim": 1536, "decoder_ffn_dim": 1536, "max_target_positions": 448}
_PAD, _END, _UNKNOWN = "<pad>", "</s>", "<unk>"
_TOKENS = 4000
#: A statement by its first word, as the target says it.
_STATEMENTS = {
    "def": "defines a function", "class": "defines a class", "return": "returns a value", "if": "tests a condition",
    "elif": "tests another condition", "for": "loops over items", "while": "loops on a condition",
    "raise": "raises an error", "import": "imports a module", "from": "imports a name", "with": "enters a context",
    "assert": "checks a claim",
}  # fmt: skip
_TOPICS = 8
_RATE, _SECONDS = 16_000, 2
_NOTES = ("C", "C sharp", "D", "E flat", "E", "F", "F sharp", "G", "A flat", "A", "B flat", "B")
_COUNTS = ("one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Example:
    """An input, text or a sound of `_RATE` samples a second, and the text that a model is to write for it."""

    given: Any
    target: str


class TextTasks:
    """FLAN-T5-small's shape: what a line of Python does, without its first word; its manual's chapter of a passage."""

    name = "FLAN-T5-small"
    names = ("statements", "topics")
    tied_head = "untie"  # the class ties it whatever the config says, and the files hold one that differs

    def __init__(self) -> None:
        self._examples = {"statements": _statements(), "topics": _topics()}
        texts = [text for rows in self._examples.values() for row in rows[0] for text in (row.given, row.target)]
        self._tokenizer = _make_tokenizer(texts)

    def build(self) -> PreTrainedModel:
        """A model with random weights, and a head of its own as FLAN-T5's: the class ties it."""
        model = T5ForConditionalGeneration(T5Config(**_T5))
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight) * _T5["d_model"] ** -0.5)
        return model

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """The folder as a user has it."""
        model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def examples(self, task: str, *, held_out: bool, count: int, generator: random.Random) -> list[Example]:
        """Random examples of one half, no two alike."""
        return generator.sample(self._examples[task][held_out], count)

    def inputs(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """What the encoder reads, and its mask."""
        return dict(self._tokenizer([row.given for row in rows], padding=True, return_tensors="pt"))

    def labels(self, rows: Sequence[Example]) -> Tensor:
        """(B, L), -100 at padding."""
        return _labels(self._tokenizer, rows)

    def decode(self, ids: Tensor) -> list[str]:
        """Texts that a model wrote."""
        return self._tokenizer.batch_decode(ids, skip_special_tokens=True)

    def write(self, stem: Path, rows: Sequence[Example]) -> Mapping[str, object]:
        """Write rows; the keys of a manifest that name them."""
        path = stem.with_suffix(".jsonl")
        path.write_text("".join(json.dumps({"line": row.given, "answer": row.target}) + "\n" for row in rows))
        return {"path": str(path), "field": "line", "target": "answer"}


class SoundTasks:
    """Whisper-tiny's shape, for sounds of two seconds: the name of a note, and how many beeps there are."""

    name = "Whisper-tiny"
    names = ("notes", "beeps")
    tied_head = "refuse"  # as is the default: it is the embeddings

    def __init__(self) -> None:
        extractor: Any = WhisperFeatureExtractor  # untyped
        self._extractor = extractor(feature_size=80, chunk_length=_SECONDS)
        targets = [*(f"note {note}" for note in _NOTES), *(f"{count} beeps" for count in _COUNTS)]
        self._tokenizer = _make_tokenizer(targets)

    def build(self) -> PreTrainedModel:
        """A model with random weights, and a position for each two frames of a sound."""
        ids: dict[str, Any] = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 0}
        model = WhisperForConditionalGeneration(
            WhisperConfig(**_WHISPER, **ids, max_source_positions=50 * _SECONDS, begin_suppress_tokens=None)
        )
        model.generation_config.begin_suppress_tokens = None
        return model

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """The folder as a user has it."""
        model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        self._extractor.save_pretrained(folder)

    def examples(self, task: str, *, held_out: bool, count: int, generator: random.Random) -> list[Example]:
        """New sounds: none is made twice."""
        del held_out
        make = {"notes": _note, "beeps": _beeps}[task]
        return [make(np.random.default_rng(generator.randrange(1 << 62))) for _ in range(count)]

    def inputs(self, rows: Sequence[Example]) -> dict[str, Tensor]:
        """Spectra, (B, 80, frames)."""
        sounds = [row.given for row in rows]
        features = self._extractor(sounds, sampling_rate=_RATE, return_tensors="pt")
        return {"input_features": features["input_features"]}

    def labels(self, rows: Sequence[Example]) -> Tensor:
        """(B, L), -100 at padding."""
        return _labels(self._tokenizer, rows)

    def decode(self, ids: Tensor) -> list[str]:
        """Texts that a model wrote."""
        return self._tokenizer.batch_decode(ids, skip_special_tokens=True)

    def write(self, stem: Path, rows: Sequence[Example]) -> Mapping[str, object]:
        """Write rows; the keys of a manifest that name them."""
        labels = self.labels(rows)
        starts = torch.zeros_like(labels[:, :1])
        tensors = {
            **self.inputs(rows),
            "decoder_input_ids": torch.cat([starts, labels.clamp(min=0)], dim=1),
            "decoder_attention_mask": torch.cat([starts + 1, (labels >= 0).long()], dim=1),
        }
        save_file(tensors, path := stem.with_suffix(".safetensors"))
        return {"path": str(path)}


def _make_tokenizer(texts: Sequence[str]) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer of these texts that ends each text with </s>, as T5's does."""
    tokenizer = Tokenizer(models.BPE(unk_token=_UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=_TOKENS, special_tokens=[_PAD, _END, _UNKNOWN], show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {_END}", special_tokens=[(_END, 1)])
    made: Any = PreTrainedTokenizerFast  # untyped
    wrapped: PreTrainedTokenizerFast = made(
        tokenizer_object=tokenizer, pad_token=_PAD, eos_token=_END, unk_token=_UNKNOWN
    )
    return wrapped


def _labels(tokenizer: PreTrainedTokenizerFast, rows: Sequence[Example]) -> Tensor:
    batch = tokenizer(text_target=[row.target for row in rows], padding=True, return_tensors="pt")
    labels: Tensor = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return labels


def _statements() -> tuple[list[Example], list[Example]]:
    """Lines of Python's library, without the first word, by what that does: those of every second file are held out."""
    halves: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for number, path in enumerate(sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))):
        for line in map(str.strip, path.read_text(encoding="utf-8", errors="replace").splitlines()):
            word = re.split(r"\W", line, maxsplit=1)[0]
            if word in _STATEMENTS and 2 <= len(line.split()) <= 8 and len(line) < 60:
                halves[number % 2].setdefault(line.removeprefix(word).strip(), _STATEMENTS[word])
    first, second = ([Example(line, target) for line, target in half.items()] for half in halves)
    return first, second


def _topics() -> tuple[list[Example], list[Example]]:
    """Passages of the manual's longest chapters: every second paragraph is held out."""
    from pydoc_data.topics import topics

    longest = sorted(topics, key=lambda name: len(topics[name]), reverse=True)[:_TOPICS]
    halves: tuple[list[Example], list[Example]] = ([], [])
    for name in longest:
        for number, paragraph in enumerate(re.split(r"\n\s*\n", topics[name])):
            words = paragraph.split()
            for start in range(0, len(words) - 11, 6):
                halves[number % 2].append(Example(" ".join(words[start : start + 12]), f"chapter {name}"))
    return halves


def _note(generator: np.random.Generator) -> Example:
    """One tone with overtones and noise, as long as the sound."""
    index = int(generator.integers(len(_NOTES)))
    times = np.arange(_RATE * _SECONDS) / _RATE
    pitch = 523.25 * 2 ** (index / 12)
    overtones = generator.uniform(0, 0.5, 3)
    sound = sum(a * np.sin(2 * np.pi * pitch * k * times) for k, a in enumerate((1.0, *overtones), 1))
    return Example(_noisy(sound * generator.uniform(0.1, 0.5), generator), f"note {_NOTES[index]}")


def _beeps(generator: np.random.Generator) -> Example:
    """Short tones of one pitch, as many as the target says."""
    count = int(generator.integers(1, len(_COUNTS) + 1))
    sound, length = np.zeros(_RATE * _SECONDS), _RATE // 10
    pitch = generator.uniform(400, 1600)
    places = np.sort(generator.permutation(len(_COUNTS) + 3)[:count])
    for place in places:
        start = int((place + generator.uniform(0.1, 0.4)) * _RATE * _SECONDS / (len(_COUNTS) + 3.5))
        sound[start : start + length] = np.sin(2 * np.pi * pitch * np.arange(length) / _RATE)
    return Example(_noisy(sound * generator.uniform(0.1, 0.5), generator), f"{_COUNTS[count - 1]} beeps")


def _noisy(sound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    return (sound + generator.normal(0, 0.01, len(sound))).astype(np.float32)
