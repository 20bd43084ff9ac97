"""Names of files that belong to a model besides its config and weights: tokenizers, processors, licences."""

GENERATION_CONFIG = "generation_config.json"
#: Tokenizers, and their vocabularies as trained.
TOKENIZER_PATTERNS = (
    "tokenizer*.json", "special_tokens*.json", "added_tokens.json", "vocab.json", "vocab.txt", "vocab.bpe",
    "merges.txt", "bpe.codes", "encoder.json", "normalizer.json", "tekken.json", "emoji_tokenizer.json",
    "*.model", "*.spm", "*.tiktoken",
)  # fmt: skip
TEMPLATE_PATTERNS = ("chat_template.jinja", "chat_template.json", "additional_chat_templates/*.jinja")
#: Globs within the base's folder; a star stays within a folder.
AUXILIARY_PATTERNS = (
    GENERATION_CONFIG, *TOKENIZER_PATTERNS, *TEMPLATE_PATTERNS,
    # Processors of images, videos and sound.
    "*processor_config.json", "*preprocessor_config.json", "feature_extractor.json",
    # sentence-transformers.
    "modules.json", "sentence_*_config.json", "config_sentence_transformers.json",
    "[0-9]*_*/config.json", "[1-9]*_*/model.safetensors",
    "LICENSE*", "LICENCE*", "NOTICE*", "COPYING*", "USE_POLICY*",
)  # fmt: skip
#: Globs of the folders that hold some of them.
AUXILIARY_FOLDERS = tuple(pattern.partition("/")[0] for pattern in AUXILIARY_PATTERNS if "/" in pattern)
