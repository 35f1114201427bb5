/* What the kernels need of the C library where there is none: instructions of WebAssembly itself. */
#ifndef ONEBIT_WASM_STRING_H
#define ONEBIT_WASM_STRING_H

#define memcpy __builtin_memcpy
#define memset __builtin_memset

#endif
