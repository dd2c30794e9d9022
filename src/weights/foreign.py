"""Files that are no weights, told by their first bytes."""

START = {
    b"GGUF": "a GGUF file",
    b"\x89HDF\r\n\x1a\n": "an HDF5 file",
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "compressed by gzip",
    b"\xd8\x5e\x3a\x7f": "an encrypted MindSpore checkpoint",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\x7fELF": "a program",
    b"%PDF": "a PDF document",
    b"\x08": "perhaps an ONNX file (those that eval.py takes end in .onnx)",  # its first field is a number
}
TAR_PLACE, TAR_MARK = 257, b"ustar"
MINDIR_MARK, MINDIR_PLACE = b"\x12\x09MindSpore", 32  # the name of the program that made it, and the end of that


def name_foreign(head: bytes):
    """Say what a file is, if it is of a known kind that holds no weights.

    Args:
        head: its first 512 bytes, or all of it.

    Returns:
        Words, or None.
    """
    if head[TAR_PLACE:].startswith(TAR_MARK):
        return "a tar archive, such as PyTorch wrote before 0.2"
    if MINDIR_MARK in head[:MINDIR_PLACE]:
        return "a MINDIR file (those that eval.py takes end in .mindir)"
    if all(32 <= byte < 127 or byte in b"\t\n\r" for byte in head):
        return "a text file"
    return next((kind for start, kind in START.items() if head.startswith(start)), None)
