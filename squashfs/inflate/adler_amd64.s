#include "textflag.h"

// How often the bytes of a step of sixteen count.
DATA weights<>+0(SB)/8, $0x000d000e000f0010
DATA weights<>+8(SB)/8, $0x0009000a000b000c
DATA weights<>+16(SB)/8, $0x0005000600070008
DATA weights<>+24(SB)/8, $0x0001000200030004
GLOBL weights<>(SB), RODATA|NOPTR, $32

// func sums(p []byte) (plain, weighted uint64)
//
// X1 has the plain sum in two halves, X2 the sum of what X1 was before each
// step, X3 the weighted sums of the steps in four parts. SSE2 only, which every
// amd64 has.
TEXT ·sums(SB), NOSPLIT, $0-40
	MOVQ p_base+0(FP), SI
	MOVQ p_len+8(FP), CX
	SHRQ $4, CX
	PXOR X0, X0
	PXOR X1, X1
	PXOR X2, X2
	PXOR X3, X3
	MOVOU weights<>+0(SB), X6
	MOVOU weights<>+16(SB), X7
	TESTQ CX, CX
	JEQ  done
step:
	MOVOU (SI), X4
	PADDQ X1, X2
	MOVO  X4, X5
	MOVO  X4, X8
	PSADBW X0, X4
	PADDQ X4, X1
	PUNPCKLBW X0, X5
	PMADDWL X6, X5
	PADDL X5, X3
	PUNPCKHBW X0, X8
	PMADDWL X7, X8
	PADDL X8, X3
	ADDQ  $16, SI
	DECQ  CX
	JNE   step
done:
	PSHUFD $0xee, X1, X4           // the upper half
	PADDQ X4, X1
	MOVQ  X1, plain+24(FP)
	PSHUFD $0xee, X2, X4
	PADDQ X4, X2
	MOVQ  X2, AX
	SHLQ  $4, AX
	MOVO  X3, X4                   // dwords to quadwords
	PUNPCKLLQ X0, X3
	PUNPCKHLQ X0, X4
	PADDQ X4, X3
	PSHUFD $0xee, X3, X4
	PADDQ X4, X3
	MOVQ  X3, BX
	ADDQ  BX, AX
	MOVQ  AX, weighted+32(FP)
	RET
