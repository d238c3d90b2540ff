"""The simulator in the shape of SGLang's package, as far as somebody uses it who starts a server or has weights cut up. It needs no other package."""
