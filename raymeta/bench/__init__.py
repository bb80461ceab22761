"""The speed and memory of a meta-gradient: our paths, other libraries, and the floor, interleaved in one run."""
