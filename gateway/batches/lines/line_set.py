"""A set of line numbers: the lines of a file that have an answer."""


class LineSet:
    """Numbers of lines, one bit each: a hundred million lines take 12 MB."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        byte = number >> 3
        return byte < len(self._bits) and bool(self._bits[byte] & (1 << (number & 7)))

    def add(self, number: int) -> None:
        """Add a line's number; adding it again changes nothing."""
        if number in self:
            return
        byte = number >> 3
        if byte >= len(self._bits):
            self._bits.extend(bytes(byte + 1 - len(self._bits)))
        self._bits[byte] |= 1 << (number & 7)
        self._count += 1
