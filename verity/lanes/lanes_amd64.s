#include "textflag.h"

DATA k<>+0(SB)/8, $0x71374491428a2f98
DATA k<>+8(SB)/8, $0xe9b5dba5b5c0fbcf
DATA k<>+16(SB)/8, $0x59f111f13956c25b
DATA k<>+24(SB)/8, $0xab1c5ed5923f82a4
DATA k<>+32(SB)/8, $0x12835b01d807aa98
DATA k<>+40(SB)/8, $0x550c7dc3243185be
DATA k<>+48(SB)/8, $0x80deb1fe72be5d74
DATA k<>+56(SB)/8, $0xc19bf1749bdc06a7
DATA k<>+64(SB)/8, $0xefbe4786e49b69c1
DATA k<>+72(SB)/8, $0x240ca1cc0fc19dc6
DATA k<>+80(SB)/8, $0x4a7484aa2de92c6f
DATA k<>+88(SB)/8, $0x76f988da5cb0a9dc
DATA k<>+96(SB)/8, $0xa831c66d983e5152
DATA k<>+104(SB)/8, $0xbf597fc7b00327c8
DATA k<>+112(SB)/8, $0xd5a79147c6e00bf3
DATA k<>+120(SB)/8, $0x1429296706ca6351
DATA k<>+128(SB)/8, $0x2e1b213827b70a85
DATA k<>+136(SB)/8, $0x53380d134d2c6dfc
DATA k<>+144(SB)/8, $0x766a0abb650a7354
DATA k<>+152(SB)/8, $0x92722c8581c2c92e
DATA k<>+160(SB)/8, $0xa81a664ba2bfe8a1
DATA k<>+168(SB)/8, $0xc76c51a3c24b8b70
DATA k<>+176(SB)/8, $0xd6990624d192e819
DATA k<>+184(SB)/8, $0x106aa070f40e3585
DATA k<>+192(SB)/8, $0x1e376c0819a4c116
DATA k<>+200(SB)/8, $0x34b0bcb52748774c
DATA k<>+208(SB)/8, $0x4ed8aa4a391c0cb3
DATA k<>+216(SB)/8, $0x682e6ff35b9cca4f
DATA k<>+224(SB)/8, $0x78a5636f748f82ee
DATA k<>+232(SB)/8, $0x8cc7020884c87814
DATA k<>+240(SB)/8, $0xa4506ceb90befffa
DATA k<>+248(SB)/8, $0xc67178f2bef9a3f7
GLOBL k<>(SB), RODATA|NOPTR, $256

// swap turns the bytes of each word around.
DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// Registers: X1 (f e b a) and X2 (h g d c) are the state of the first hash, X3
// to X6 sixteen words of its message; X7, X8 and X9 to X12 those of the second.
// X0 is what the instruction takes words and constants from, X13 is free, X14
// has the bytes of swap. AX: constants, CX: blocks left, SI and DI: messages.

// LOAD reads four words of a message.
#define LOAD(MEM, W) \
	MOVOU  MEM, W \
	PSHUFB X14, W

// ROUNDS does four rounds with the words in W and the constants at OFF.
#define ROUNDS(L, H, OFF, W) \
	MOVO        W, X0        \
	PADDD       OFF(AX), X0  \
	SHA256RNDS2 X0, L, H     \
	PSHUFD      $0x0e, X0, X0 \
	SHA256RNDS2 X0, H, L

// NEXT makes the next four words in W, the oldest ones, from the others in the
// order of their age.
#define NEXT(W, A, B, C) \
	SHA256MSG1 A, W       \
	MOVO       C, X13     \
	PALIGNR    $4, B, X13 \
	PADDD      X13, W     \
	SHA256MSG2 C, W

// MORE is NEXT and ROUNDS four times.
#define MORE(L, H, OFF, A, B, C, D) \
	NEXT(A, B, C, D)          \
	ROUNDS(L, H, OFF, A)      \
	NEXT(B, C, D, A)          \
	ROUNDS(L, H, OFF+16, B)   \
	NEXT(C, D, A, B)          \
	ROUNDS(L, H, OFF+32, C)   \
	NEXT(D, A, B, C)          \
	ROUNDS(L, H, OFF+48, D)

// BOTH does four rounds in each lane.
#define BOTH(OFF, W, V) \
	ROUNDS(X1, X2, OFF, W) \
	ROUNDS(X7, X8, OFF, V)

// MOREBOTH is NEXT and ROUNDS in each lane.
#define MOREBOTH(OFF, A, B, C, D, E, F, G, H) \
	NEXT(A, B, C, D)      \
	NEXT(E, F, G, H)      \
	BOTH(OFF, A, E)

#define SIXTEEN(OFF) \
	MOREBOTH(OFF, X3, X4, X5, X6, X9, X10, X11, X12)    \
	MOREBOTH(OFF+16, X4, X5, X6, X3, X10, X11, X12, X9) \
	MOREBOTH(OFF+32, X5, X6, X3, X4, X11, X12, X9, X10) \
	MOREBOTH(OFF+48, X6, X3, X4, X5, X12, X9, X10, X11)

// func blocks(s, t *State, p, q *byte, n int)
TEXT ·blocks(SB), NOSPLIT, $64-40
	MOVQ  s+0(FP), R8
	MOVQ  t+8(FP), R9
	MOVQ  p+16(FP), SI
	MOVQ  q+24(FP), DI
	MOVQ  n+32(FP), CX
	LEAQ  k<>(SB), AX
	MOVOU swap<>(SB), X14
	MOVOU 0(R8), X1
	MOVOU 16(R8), X2
	MOVOU 0(R9), X7
	MOVOU 16(R9), X8

both:
	MOVOU X1, 0(SP)
	MOVOU X2, 16(SP)
	MOVOU X7, 32(SP)
	MOVOU X8, 48(SP)
	LOAD(0(SI), X3)
	LOAD(0(DI), X9)
	BOTH(0, X3, X9)
	LOAD(16(SI), X4)
	LOAD(16(DI), X10)
	BOTH(16, X4, X10)
	LOAD(32(SI), X5)
	LOAD(32(DI), X11)
	BOTH(32, X5, X11)
	LOAD(48(SI), X6)
	LOAD(48(DI), X12)
	BOTH(48, X6, X12)
	SIXTEEN(64)
	SIXTEEN(128)
	SIXTEEN(192)
	MOVOU 0(SP), X13
	PADDD X13, X1
	MOVOU 16(SP), X13
	PADDD X13, X2
	MOVOU 32(SP), X13
	PADDD X13, X7
	MOVOU 48(SP), X13
	PADDD X13, X8
	ADDQ  $64, SI
	ADDQ  $64, DI
	DECQ  CX
	JNZ   both
	MOVOU X1, 0(R8)
	MOVOU X2, 16(R8)
	MOVOU X7, 0(R9)
	MOVOU X8, 16(R9)
	RET

// func block(s *State, p *byte, n int)
TEXT ·block(SB), NOSPLIT, $0-24
	MOVQ  s+0(FP), R8
	MOVQ  p+8(FP), SI
	MOVQ  n+16(FP), CX
	LEAQ  k<>(SB), AX
	MOVOU swap<>(SB), X14
	MOVOU 0(R8), X1
	MOVOU 16(R8), X2

one:
	MOVO  X1, X7
	MOVO  X2, X8
	LOAD(0(SI), X3)
	ROUNDS(X1, X2, 0, X3)
	LOAD(16(SI), X4)
	ROUNDS(X1, X2, 16, X4)
	LOAD(32(SI), X5)
	ROUNDS(X1, X2, 32, X5)
	LOAD(48(SI), X6)
	ROUNDS(X1, X2, 48, X6)
	MORE(X1, X2, 64, X3, X4, X5, X6)
	MORE(X1, X2, 128, X3, X4, X5, X6)
	MORE(X1, X2, 192, X3, X4, X5, X6)
	PADDD X7, X1
	PADDD X8, X2
	ADDQ  $64, SI
	DECQ  CX
	JNZ   one
	MOVOU X1, 0(R8)
	MOVOU X2, 16(R8)
	RET

// func cpuid(leaf, sub uint32) (eax, ebx, ecx, edx uint32)
TEXT ·cpuid(SB), NOSPLIT, $0-24
	MOVL leaf+0(FP), AX
	MOVL sub+4(FP), CX
	CPUID
	MOVL AX, eax+8(FP)
	MOVL BX, ebx+12(FP)
	MOVL CX, ecx+16(FP)
	MOVL DX, edx+20(FP)
	RET
