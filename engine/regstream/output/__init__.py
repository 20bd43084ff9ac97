"""Everything in the output folder beside the shards, and the checks of a finished result.

publish.py: auxiliary files, index, config and model card, written so that a partial result never loads.
record.py: reads regstream.json, the record of a result, and writes it with the digests of all files.
record_schema.py: the fields of the record, and what each means.
merge_summary.py: what became of the candidates' changes and where the merged model fits worst, in few numbers.
lost_changes.py: warnings of changes that the merged model has nothing of.
provenance.py: what the record says of inputs and solves.
model_card.py: the text of README.md.
card_sections.py: its sections that follow from the record: scores, what the merge kept, pictures.
locked_result.py: the lock of a finished result's folder, while files are added to it.
add_results.py: adds an evaluation or a measurement of hidden states to a finished result.
local_paths.py: removes paths of this machine from tokenizer and processor settings.
ownership.py: which files of the output folder a run may overwrite or remove.
model_files.py: which file names libraries load as parts of a model.
integrity.py: one file compared with its recorded size and digest; files that are not in the record.
check_files.py: all files read, several at a time, and compared with the record.
report_files.py: the files of a report, which belong to the result from then on.
unchanged_result.py: whether a finished result and its inputs are provably unchanged, without a plan.
chosen_settings.py: the settings that a run with method "auto" has chosen.
result_identity.py: whether a finished result is that of the current manifest and inputs, unchanged.
verify.py: reads a result again, every byte of it.
check_model.py: whether config, index and tensors of a result make the model that the config describes.
push.py: uploads a result to the hub.
"""
