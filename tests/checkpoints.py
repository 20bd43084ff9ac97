"""Tiny random checkpoints, written by transformers as real ones are, and calibration sets to go with them.

Everything follows from explicit seeds. Families: `llama` (grouped queries, a head of its own), `llama-tied`,
`mistral` (a window), `qwen2` (biases, tied), `qwen3` (normed heads), `phi3` (fused linears), `gemma2` and `gemma3`
(sliding and full attention in turn, tied), `clip` (vision tower, names with `vision_model.`), `clip-plain` (without
it) and `clip-full` (the base is a whole CLIP with its tokenizer, the candidates are vision towers). Of architectures
that a manifest has to describe: `olmo2` (norms behind), `gpt_neox` (parallel residual, fused attention), `opt` (learned
positions, tokens without their rows), `megatron-bert` (blocks that return tuples) and `siglip` (no class token).

Shape suffixes: N images, C channels, H height, W width, T tokens.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    CLIPConfig,
    CLIPModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Gemma2Config,
    Gemma3TextConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MegatronBertConfig,
    MistralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    RobertaConfig,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViTConfig,
    ViTModel,
)

Family = Literal[
    "llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "bert", "roberta", "vit",
    "clip", "clip-plain", "clip-full", "olmo2", "gpt_neox", "opt", "megatron-bert", "siglip",
]  # fmt: skip
DESCRIBED_FAMILIES: tuple[Family, ...] = ("olmo2", "gpt_neox", "opt", "megatron-bert", "siglip")
FAMILIES: tuple[Family, ...] = tuple(family for family in get_args(Family) if family not in DESCRIBED_FAMILIES)
#: Language models that continue a text.
CAUSAL_FAMILIES: tuple[Family, ...] = (
    "llama", "llama-tied", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2",
)  # fmt: skip
TEXT_FAMILIES: tuple[Family, ...] = (*CAUSAL_FAMILIES, "bert", "roberta")
_CAUSAL: tuple[Family, ...] = (*CAUSAL_FAMILIES, "olmo2", "gpt_neox", "opt")
IMAGE_FAMILIES: tuple[Family, ...] = ("vit", "clip", "clip-plain", "clip-full", "siglip")

VOCABULARY = 288
SLIDING_WINDOW = 8
IMAGE_SIZE, PATCH_SIZE = 24, 8
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2 + 1  # the patches and the class token
# transformers' 0.02 is for widths in the thousands: here attention would be flat and every logit near zero.
INITIALIZER_RANGE = 0.2
CENTRED_SPREAD = 0.1  # of what transformers starts at a constant: norms and biases
SMALL_SHARD_BYTES = 20_000
VISION_PREFIX = "vision_model."

WORD_END = "</w>"
SPECIAL_TOKENS = ("<pad>", "<s>", "</s>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SENTENCES = (
    "The river bends twice before it reaches the old mill.",
    "Seven times eight is fifty-six, and one more makes fifty-seven.",
    "She wrote the letter in the morning and tore it up in the evening.",
    "def area(width, height): return width * height",
    "Nobody had told the captain that the harbour was closed.",
    "A matrix with more columns than rows has a null space.",
    "Le train de nuit arrive à l'heure, ce qui étonne tout le monde.",
    "If the kettle whistles, take it off the stove and wait a minute.",
)


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Where one base and its candidates lie."""

    base: Path
    candidates: list[Path]


def make_family(
    folder: Path,
    family: Family,
    *,
    candidates: int = 3,
    layers: int | None = None,
    hidden: int = 32,
    seed: int = 0,
    spread: float = 0.1,
    dtype: torch.dtype = torch.float32,
    sharded: bool = False,
) -> Folders:
    """Write a base and its candidates: each tensor of a candidate is the base's plus `spread` × its RMS × noise.

    `layers` is 4 for Gemma, else 3, where not given; `hidden` is a multiple of 8. Noise is added in float32 and the
    sum cast once. With `spread` 0 all candidates are the base.
    """
    generator = torch.Generator().manual_seed(seed)
    base = _new_model(family, layers=layers or (4 if family in ("gemma2", "gemma3") else 3), hidden=hidden)
    randomise(base, generator)
    folders = Folders(base=folder / "base", candidates=[folder / f"candidate-{i}" for i in range(candidates)])
    origin = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    _save(base, folders.base, family, dtype=dtype, sharded=sharded)
    for path in folders.candidates:
        nn.Module.to(base, torch.float32).load_state_dict(origin)
        perturb(base, spread, generator)
        tuned = base.vision_model if isinstance(base, CLIPModel) else base
        _save(tuned, path, family, dtype=dtype, sharded=sharded)
    return folders


def load(folder: Path, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """The model in a folder, whole, in evaluation mode; of a full CLIP the vision tower. No tensor may be missing."""
    model_type = AutoConfig.from_pretrained(folder).model_type
    loaders: dict[str, Any] = {"clip": CLIPVisionModel, "clip_vision_model": CLIPVisionModel}
    loaders |= dict.fromkeys(("bert", "roberta", "vit", "megatron-bert"), AutoModel)
    loaders |= {"siglip_vision_model": SiglipVisionModel}
    loader = loaders.get(model_type, AutoModelForCausalLM)
    loaded: tuple[PreTrainedModel, dict[str, Any]] = loader.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    model, info = loaded
    assert not info["missing_keys"], info["missing_keys"]
    model.train(False)
    return model


def random_rows(vocabulary: int, lengths: Sequence[int], seed: int) -> list[list[int]]:
    """Rows of token ids drawn from the whole vocabulary: the padding token is in them, as a token like any other."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(vocabulary, (length,), generator=generator).tolist() for length in lengths]


def random_images(count: int, seed: int) -> Tensor:
    """(N, C, H, W) pixel values of unit spread around an offset per image and channel."""
    generator = torch.Generator().manual_seed(seed)
    offset_NC11 = torch.randn(count, 3, 1, 1, generator=generator)
    return offset_NC11 + torch.randn(count, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


def token_inputs(rows: Iterable[Sequence[int]]) -> list[dict[str, Tensor]]:
    """Forward arguments, one unpadded row each: input_ids (1, T)."""
    return [{"input_ids": torch.tensor([row])} for row in rows]


def image_inputs(pixels_NCHW: Tensor, batch_rows: int = 8) -> list[dict[str, Tensor]]:
    """Forward arguments, one batch of images each."""
    return [{"pixel_values": batch_NCHW} for batch_NCHW in torch.split(pixels_NCHW, batch_rows)]


def write_token_rows(path: Path, rows: Iterable[Sequence[int]]) -> Path:
    return _write_lines(path, ({"input_ids": list(row)} for row in rows))


def write_texts(path: Path, texts: Iterable[str]) -> Path:
    return _write_lines(path, ({"text": text} for text in texts))


def write_images(path: Path, pixels_NCHW: Tensor) -> Path:
    save_file({"pixel_values": pixels_NCHW.contiguous()}, path, metadata={"format": "pt"})
    return path


@cache
def make_clip_tokenizer() -> CLIPTokenizer:
    """Bytes, bytes that end a word, merges of `SENTENCES`, and last the two tokens around a text: as CLIP's own."""
    make: Any = CLIPTokenizer  # untyped
    split = make().backend_tokenizer
    trained = Tokenizer(models.BPE(end_of_word_suffix=WORD_END))
    trained.normalizer, trained.pre_tokenizer = split.normalizer, split.pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=300, end_of_word_suffix=WORD_END, show_progress=False)
    trained.train_from_iterator(SENTENCES, trainer)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(letter + WORD_END for letter in alphabet), *(left + right for left, right in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    tokenizer: CLIPTokenizer = make(
        vocab={token: index for index, token in enumerate(dict.fromkeys(tokens))}, merges=merges, model_max_length=77
    )
    return tokenizer


@cache
def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens that puts <s> before a text, as Llama's does; so does its template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    assert tokenizer.get_vocab_size() == VOCABULARY
    fast: Any = PreTrainedTokenizerFast  # untyped
    wrapped: PreTrainedTokenizerFast = fast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
    return wrapped


def _new_model(family: Family, *, layers: int, hidden: int) -> PreTrainedModel:
    shape: dict[str, Any] = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "initializer_range": INITIALIZER_RANGE,
    }
    if family in IMAGE_FAMILIES:
        vision = {**shape, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
        if family == "vit":
            return ViTModel(ViTConfig(**shape, image_size=IMAGE_SIZE, patch_size=PATCH_SIZE))
        if family == "siglip":
            return SiglipVisionModel(SiglipVisionConfig(**vision, vision_use_head=False))
        if family != "clip-full":
            return CLIPVisionModel(CLIPVisionConfig(**vision))
        tokenizer: Any = make_clip_tokenizer()  # untyped
        ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
        text = {**shape, "num_hidden_layers": 2, "vocab_size": len(tokenizer), **ends}
        return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=16))
    shape |= {"num_key_value_heads": 2, "vocab_size": VOCABULARY, "max_position_embeddings": 256}
    shape |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    # Heads together wider than the hidden states, as in Gemma: the output projection is not square.
    wide: dict[str, Any] = {"head_dim": hidden // 2, "query_pre_attn_scalar": hidden // 2}
    window: dict[str, Any] = {"sliding_window": SLIDING_WINDOW}
    kinds = ["sliding_attention", "full_attention"] * layers
    configs: dict[Family, Callable[[], PreTrainedConfig]] = {
        "llama": lambda: LlamaConfig(**shape, tie_word_embeddings=False),
        "llama-tied": lambda: LlamaConfig(**shape, tie_word_embeddings=True),
        "mistral": lambda: MistralConfig(**shape, **window),
        "qwen2": lambda: Qwen2Config(**shape, tie_word_embeddings=True),
        "qwen3": lambda: Qwen3Config(**shape, head_dim=hidden // 2),
        "gemma2": lambda: Gemma2Config(**shape, **window, **wide),
        "gemma3": lambda: Gemma3TextConfig(**shape, **window, **wide, layer_types=kinds[:layers]),
        "phi3": lambda: Phi3Config(**shape),
        "gpt2": lambda: GPT2Config(**shape),
        "bert": lambda: BertConfig(**shape),
        "roberta": lambda: RobertaConfig(**shape),
        "olmo2": lambda: Olmo2Config(**shape),
        "gpt_neox": lambda: GPTNeoXConfig(**shape),
        "opt": lambda: OPTConfig(**shape, ffn_dim=2 * hidden, word_embed_proj_dim=hidden),
        "megatron-bert": lambda: MegatronBertConfig(**shape),
    }
    make: Any = (AutoModelForCausalLM if family in _CAUSAL else AutoModel).from_config  # untyped
    model: PreTrainedModel = make(configs[family]())
    return model


@torch.no_grad()
def randomise(model: PreTrainedModel, generator: torch.Generator) -> None:
    """Draw every parameter: around its value where it starts at a constant, else around zero."""
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if torch.all(
            parameter == parameter.flatten()[0]
        ):  # a norm at one, or at zero in Gemma; a bias; CLIP's logit scale
            parameter.add_(CENTRED_SPREAD * noise)
        else:
            parameter.copy_(INITIALIZER_RANGE * noise)


@torch.no_grad()
def perturb(model: PreTrainedModel, spread: float, generator: torch.Generator) -> None:
    """Add noise to every parameter: `spread` × its RMS."""
    for parameter in model.parameters():
        rms = parameter.square().mean().sqrt()
        parameter.add_(spread * rms * torch.randn(parameter.shape, generator=generator))


def _save(model: PreTrainedModel, path: Path, family: Family, *, dtype: torch.dtype, sharded: bool) -> None:
    if family not in IMAGE_FAMILIES:
        make_tokenizer().save_pretrained(path)
        generation: Any = GenerationConfig  # untyped
        model.generation_config = generation(
            do_sample=True, temperature=0.7, pad_token_id=0, bos_token_id=1, eos_token_id=2
        )
    nn.Module.to(model, dtype).save_pretrained(path, max_shard_size=SMALL_SHARD_BYTES if sharded else "1GB")
    if family in IMAGE_FAMILIES:
        write_image_processor(path)
    if isinstance(model, CLIPModel):
        make_clip_tokenizer().save_pretrained(path)
    if isinstance(model, CLIPVisionModel):
        _rename_tower(path, prefixed=family != "clip-plain")


def _rename_tower(path: Path, *, prefixed: bool) -> None:
    """Give a vision tower's tensors their names with or without the prefix, whichever transformers chose to write."""

    def renamed(name: str) -> str:
        plain = name.removeprefix(VISION_PREFIX)
        return VISION_PREFIX + plain if prefixed else plain

    for shard in path.glob("*.safetensors"):
        tensors = {name: tensor.clone() for name, tensor in load_file(shard).items()}
        save_file({renamed(name): tensor for name, tensor in tensors.items()}, shard, metadata={"format": "pt"})
    index = path / "model.safetensors.index.json"
    if index.exists():
        content = json.loads(index.read_text())
        content["weight_map"] = {renamed(name): shard for name, shard in content["weight_map"].items()}
        index.write_text(json.dumps(content, indent=2))


def write_image_processor(path: Path) -> None:
    """Settings that a CLIP's image processor is read from."""
    content = {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": IMAGE_SIZE},
        "do_center_crop": True,
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "do_rescale": True,
        "do_normalize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.25, 0.25, 0.25],
    }
    (path / "preprocessor_config.json").write_text(json.dumps(content, indent=2))


def _write_lines(path: Path, records: Iterable[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return path
