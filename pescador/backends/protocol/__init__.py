"""What a consumer and its worker processes say to each other.

connection.py   messages between two processes, in order and with handles of shared memory
frames.py       what it is made of: the bounds of messages in a stream
messages.py     the form of what a worker sends
codec.py        items as bytes, and back: dicts of arrays
pickling.py     all other items
errors.py       exceptions as bytes, and back
transport.py    the contract of the two halves that move large items
script.py       pickling what is in the user's script, which a worker does not run
mapped.py       arrays in mapped files, which are mapped again
tensors.py      tensors that are views of each other
world.py        surroundings that a worker takes over: folder, environment, search path, seeds
"""
