"""Calibration and evaluation sets: rows read from files and from data sets of the hub, checked and batched.

non_text_rows.py: opens images and stored inputs, of files and folders, for models that read more than token ids
loading.py: from a manifest's `[candidates.calibration]` to batches
dataset_sampler.py: rows of a data set of the hub, sampled once and cached
row_reader.py, row_writer.py: rows of text files and parquet tables
json_rows.py, csv_rows.py: rows of a .json and of a .csv
alpaca.py: rows of instruction, input and output
chat_messages.py: conversations for chat templates
bounded_process.py: a process with bounded time and memory
tokens.py: rows to token ids
tokenizer_process.py: the tokenizer in such a process
tokenizer_files.py: its tokens, and a tokenizer with more of them
id_map.py: token ids of one tokenizer as those of another
chat_templates.py: the chat templates in a folder
tensor_rows.py: token ids in a safetensors file
encoded_images.py: image files of a folder, or of a parquet column
decode_image.py: one image decoded
image_processor.py: those images decoded and preprocessed for the model
pixels.py: images in batches of `pixel_values`
row_images.py: which images belong to a row of text, and where they are
multimodal_processor.py: such a row as the model's arguments, by the base's processor
processor_process.py: this processor in a bounded process
multimodal.py: rows of text and images, prepared when they are needed
stored_inputs.py: any model's inputs in a safetensors file
target_rows.py: rows of an input and a target, for a model of an encoder and a decoder
row_checks.py: warnings of rows, and ids beyond the vocabulary
batch_policy.py: how many rows form a batch
batch_range.py: what one rank of a run has of a calibration set
"""
