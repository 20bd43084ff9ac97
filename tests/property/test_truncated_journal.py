"""Wherever a journal is cut off: only whole records at its end are lost, and the run can be resumed."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from regstream.storage import journal_lines as lines

VALUES = st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=8) | st.floats(allow_nan=False)
RECORDS = st.dictionaries(st.text(max_size=6), VALUES | st.lists(VALUES, max_size=3), max_size=4)


@given(records=st.lists(RECORDS, max_size=5), data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_cut_loses_whole_records_at_the_end_and_no_others(records: list[lines.Record], data: st.DataObject) -> None:
    encoded = [lines.encode(record) for record in records]
    content = b"".join(encoded)
    cut = data.draw(st.integers(0, len(content)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.jsonl")
        path.write_bytes(content[:cut])
        read, num_bytes = lines.read(path)
        ends = [sum(map(len, encoded[:count])) for count in range(len(records) + 1)]
        whole = max(count for count, end in enumerate(ends) if end <= cut)
        assert read == records[:whole]
        assert num_bytes == ends[whole]
        path.write_bytes(content[:num_bytes] + lines.encode({"next": 1}))
        assert lines.read(path)[0] == [*records[:whole], {"next": 1}]
