"""llama.cpp through `xllamacpp`: a serving engine that none of us wrote, on any CPU, in whole steps."""
