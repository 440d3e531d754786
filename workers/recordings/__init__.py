"""Recordings: the entries of a bus in MCAP files, which Foxglove and other readers open.

`entry_messages` takes an entry of the bus apart into messages and puts it together again, bit for
bit. `mcap_writer` and `folder_writer` write, `recording` reads; `chunk_reader` and `file_index`
keep damage apart from what is whole.
May import: `workers/bus/`, `models/` and `pipeline/`.
"""
