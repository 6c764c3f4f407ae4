"""The simulator measured: its speed, how true it is, how near the policies come to the best, and its estimates."""
