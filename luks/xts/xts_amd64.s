#include "textflag.h"

// Registers of all crypting functions: AX first round key, R8 the place from
// which the last ten rounds have the same offsets for both key sizes, R9
// rounds, DI destination, SI source, CX sectors left, BX bytes left of this
// sector, DX tweaks.

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

// func xgetbv() (eax uint32)
TEXT ·xgetbv(SB), NOSPLIT, $0-4
	XORL CX, CX
	XGETBV
	MOVL AX, eax+0(FP)
	RET

// MIX folds the words of K into each other and adds the assist in X1, of
// which PICK selects the word.
#define MIX(K, PICK) \
	PSHUFD $PICK, X1, X1 \
	MOVOU  K, X3         \
	PSLLDQ $4, X3        \
	PXOR   X3, K         \
	PSLLDQ $4, X3        \
	PXOR   X3, K         \
	PSLLDQ $4, X3        \
	PXOR   X3, K         \
	PXOR   X1, K         \
	MOVOU  K, (BX)       \
	ADDQ   $16, BX

#define EXPAND128(RCON) \
	AESKEYGENASSIST $RCON, X0, X1 \
	MIX(X0, 0xff)

#define EXPAND256(RCON) \
	AESKEYGENASSIST $RCON, X2, X1 \
	MIX(X0, 0xff)                 \
	AESKEYGENASSIST $0, X0, X1    \
	MIX(X2, 0xaa)

// func expandKey(rounds int, key, enc, dec *byte)
TEXT ·expandKey(SB), NOSPLIT, $0-32
	MOVQ  rounds+0(FP), CX
	MOVQ  key+8(FP), AX
	MOVQ  enc+16(FP), BX
	MOVQ  dec+24(FP), DX
	MOVOU (AX), X0
	MOVOU X0, (BX)
	ADDQ  $16, BX
	CMPQ  CX, $10
	JNE   long
	EXPAND128(0x01)
	EXPAND128(0x02)
	EXPAND128(0x04)
	EXPAND128(0x08)
	EXPAND128(0x10)
	EXPAND128(0x20)
	EXPAND128(0x40)
	EXPAND128(0x80)
	EXPAND128(0x1b)
	EXPAND128(0x36)
	JMP   invert

long:
	MOVOU 16(AX), X2
	MOVOU X2, (BX)
	ADDQ  $16, BX
	EXPAND256(0x01)
	EXPAND256(0x02)
	EXPAND256(0x04)
	EXPAND256(0x08)
	EXPAND256(0x10)
	EXPAND256(0x20)
	AESKEYGENASSIST $0x40, X2, X1
	MIX(X0, 0xff)

invert:
	SUBQ  $16, BX
	MOVOU (BX), X0
	MOVOU X0, (DX)
	DECQ  CX

middle:
	SUBQ   $16, BX
	ADDQ   $16, DX
	MOVOU  (BX), X0
	AESIMC X0, X0
	MOVOU  X0, (DX)
	DECQ   CX
	JNZ    middle
	MOVOU  -16(BX), X0
	MOVOU  X0, 16(DX)
	PXOR   X0, X0
	PXOR   X1, X1
	PXOR   X2, X2
	PXOR   X3, X3
	RET

// ROUND8 does INS on eight blocks with the round key at MEM.
#define ROUND8(INS, MEM) \
	MOVOU MEM, X14 \
	INS   X14, X0  \
	INS   X14, X1  \
	INS   X14, X2  \
	INS   X14, X3  \
	INS   X14, X4  \
	INS   X14, X5  \
	INS   X14, X6  \
	INS   X14, X7

// SHIFTED points R8 so that the last round key is at 224(R8).
#define SHIFTED \
	MOVQ R9, R8         \
	SUBQ $14, R8        \
	SHLQ $4, R8         \
	ADDQ AX, R8

#define LAST10(R, INS, LASTINS) \
	R(INS, 80(R8))      \
	R(INS, 96(R8))      \
	R(INS, 112(R8))     \
	R(INS, 128(R8))     \
	R(INS, 144(R8))     \
	R(INS, 160(R8))     \
	R(INS, 176(R8))     \
	R(INS, 192(R8))     \
	R(INS, 208(R8))     \
	R(LASTINS, 224(R8))

#define FIRST4(R, INS) \
	R(INS, 16(AX)) \
	R(INS, 32(AX)) \
	R(INS, 48(AX)) \
	R(INS, 64(AX))

#define ROUND1(INS, MEM) \
	MOVOU MEM, X14 \
	INS   X14, X0

// func encryptTweaks(keys *byte, rounds int, blocks *byte, n int)
TEXT ·encryptTweaks(SB), NOSPLIT, $0-32
	MOVQ  keys+0(FP), AX
	MOVQ  rounds+8(FP), R9
	MOVQ  blocks+16(FP), DI
	MOVQ  n+24(FP), CX
	MOVOU (AX), X13
	SHIFTED

eight:
	CMPQ  CX, $8
	JLT   single
	MOVOU 0(DI), X0
	MOVOU 16(DI), X1
	MOVOU 32(DI), X2
	MOVOU 48(DI), X3
	MOVOU 64(DI), X4
	MOVOU 80(DI), X5
	MOVOU 96(DI), X6
	MOVOU 112(DI), X7
	PXOR  X13, X0
	PXOR  X13, X1
	PXOR  X13, X2
	PXOR  X13, X3
	PXOR  X13, X4
	PXOR  X13, X5
	PXOR  X13, X6
	PXOR  X13, X7
	CMPQ  R9, $10
	JEQ   eight10
	FIRST4(ROUND8, AESENC)

eight10:
	LAST10(ROUND8, AESENC, AESENCLAST)
	MOVOU X0, 0(DI)
	MOVOU X1, 16(DI)
	MOVOU X2, 32(DI)
	MOVOU X3, 48(DI)
	MOVOU X4, 64(DI)
	MOVOU X5, 80(DI)
	MOVOU X6, 96(DI)
	MOVOU X7, 112(DI)
	ADDQ  $128, DI
	SUBQ  $8, CX
	JMP   eight

single:
	TESTQ CX, CX
	JZ    done
	MOVOU (DI), X0
	PXOR  X13, X0
	CMPQ  R9, $10
	JEQ   single10
	FIRST4(ROUND1, AESENC)

single10:
	LAST10(ROUND1, AESENC, AESENCLAST)
	MOVOU X0, (DI)
	ADDQ  $16, DI
	DECQ  CX
	JMP   single

done:
	RET

DATA poly<>+0(SB)/8, $0x87
DATA poly<>+8(SB)/8, $0x1
GLOBL poly<>(SB), RODATA|NOPTR, $16

// DOUBLE multiplies the tweak in X8 by x; X15 holds poly.
#define DOUBLE \
	PSHUFD $0x13, X8, X9 \
	PSRAL  $31, X9       \
	PAND   X15, X9       \
	PADDQ  X8, X8        \
	PXOR   X9, X8

// LOAD takes block I with its tweak, which it keeps on the stack.
#define LOAD(I, X) \
	MOVOU X8, (16*I)(SP) \
	MOVOU (16*I)(SI), X  \
	PXOR  X8, X          \
	PXOR  X13, X         \
	DOUBLE

#define STORE(I, X) \
	MOVOU (16*I)(SP), X9 \
	PXOR  X9, X          \
	MOVOU X, (16*I)(DI)

// CRYPT is the body of encryptAES and decryptAES.
#define CRYPT(INS, LASTINS) \
	MOVQ  keys+0(FP), AX         \
	MOVQ  rounds+8(FP), R9       \
	MOVQ  dst+16(FP), DI         \
	MOVQ  src+24(FP), SI         \
	MOVQ  n+32(FP), CX           \
	MOVQ  tweaks+48(FP), DX      \
	MOVOU poly<>(SB), X15        \
	MOVOU (AX), X13              \
	SHIFTED                      \
sector:                              \
	MOVQ  size+40(FP), BX        \
	MOVOU (DX), X8               \
	ADDQ  $16, DX                \
group:                               \
	CMPQ  BX, $128               \
	JLT   tail                   \
	LOAD(0, X0)                  \
	LOAD(1, X1)                  \
	LOAD(2, X2)                  \
	LOAD(3, X3)                  \
	LOAD(4, X4)                  \
	LOAD(5, X5)                  \
	LOAD(6, X6)                  \
	LOAD(7, X7)                  \
	CMPQ  R9, $10                \
	JEQ   group10                \
	FIRST4(ROUND8, INS)          \
group10:                             \
	LAST10(ROUND8, INS, LASTINS) \
	STORE(0, X0)                 \
	STORE(1, X1)                 \
	STORE(2, X2)                 \
	STORE(3, X3)                 \
	STORE(4, X4)                 \
	STORE(5, X5)                 \
	STORE(6, X6)                 \
	STORE(7, X7)                 \
	ADDQ  $128, SI               \
	ADDQ  $128, DI               \
	SUBQ  $128, BX               \
	JMP   group                  \
tail:                                \
	TESTQ BX, BX                 \
	JZ    next                   \
	MOVOU (SI), X0               \
	PXOR  X8, X0                 \
	PXOR  X13, X0                \
	CMPQ  R9, $10                \
	JEQ   tail10                 \
	FIRST4(ROUND1, INS)          \
tail10:                              \
	LAST10(ROUND1, INS, LASTINS) \
	PXOR  X8, X0                 \
	MOVOU X0, (DI)               \
	DOUBLE                       \
	ADDQ  $16, SI                \
	ADDQ  $16, DI                \
	SUBQ  $16, BX                \
	JMP   tail                   \
next:                                \
	DECQ  CX                     \
	JNZ   sector                 \
	RET

// func encryptAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)
TEXT ·encryptAES(SB), NOSPLIT, $128-56
	CRYPT(AESENC, AESENCLAST)

// func decryptAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)
TEXT ·decryptAES(SB), NOSPLIT, $128-56
	CRYPT(AESDEC, AESDECLAST)

// The shifts that make t*x^0 to t*x^7 of one tweak t, two to a register.
DATA left<>+0(SB)/8, $0
DATA left<>+8(SB)/8, $0
DATA left<>+16(SB)/8, $1
DATA left<>+24(SB)/8, $1
DATA left<>+32(SB)/8, $2
DATA left<>+40(SB)/8, $2
DATA left<>+48(SB)/8, $3
DATA left<>+56(SB)/8, $3
DATA left<>+64(SB)/8, $4
DATA left<>+72(SB)/8, $4
DATA left<>+80(SB)/8, $5
DATA left<>+88(SB)/8, $5
DATA left<>+96(SB)/8, $6
DATA left<>+104(SB)/8, $6
DATA left<>+112(SB)/8, $7
DATA left<>+120(SB)/8, $7
GLOBL left<>(SB), RODATA|NOPTR, $128

DATA right<>+0(SB)/8, $64
DATA right<>+8(SB)/8, $64
DATA right<>+16(SB)/8, $63
DATA right<>+24(SB)/8, $63
DATA right<>+32(SB)/8, $62
DATA right<>+40(SB)/8, $62
DATA right<>+48(SB)/8, $61
DATA right<>+56(SB)/8, $61
DATA right<>+64(SB)/8, $60
DATA right<>+72(SB)/8, $60
DATA right<>+80(SB)/8, $59
DATA right<>+88(SB)/8, $59
DATA right<>+96(SB)/8, $58
DATA right<>+104(SB)/8, $58
DATA right<>+112(SB)/8, $57
DATA right<>+120(SB)/8, $57
GLOBL right<>(SB), RODATA|NOPTR, $128

DATA polys<>+0(SB)/8, $0x87
DATA polys<>+8(SB)/8, $0
DATA polys<>+16(SB)/8, $0x87
DATA polys<>+24(SB)/8, $0
GLOBL polys<>(SB), RODATA|NOPTR, $32

// SPREAD makes two tweaks in T from the one in both halves of Y12: what the
// left shift pushes out of each half of a block goes to the other half, and
// from the upper one by way of the polynomial in Y13.
#define SPREAD(I, T) \
	VPSLLVQ    left<>+(32*I)(SB), Y12, T    \
	VPSRLVQ    right<>+(32*I)(SB), Y12, Y14 \
	VPSLLDQ    $8, Y14, Y15                 \
	VPXOR      Y15, T, T                    \
	VPCLMULQDQ $0x10, Y14, Y13, Y14         \
	VPXOR      Y14, T, T

// AHEAD multiplies the tweaks in T by x^8.
#define AHEAD(T) \
	VPSRLDQ    $15, T, Y14          \
	VPCLMULQDQ $0x00, Y14, Y13, Y14 \
	VPSLLDQ    $1, T, T             \
	VPXOR      Y14, T, T

// ROUND16 does INS on sixteen blocks with the round key at MEM.
#define ROUND16(INS, MEM) \
	VBROADCASTI128 MEM, Y15 \
	INS            Y15, Y0, Y0  \
	INS            Y15, Y1, Y1  \
	INS            Y15, Y2, Y2  \
	INS            Y15, Y3, Y3  \
	INS            Y15, Y4, Y4  \
	INS            Y15, Y5, Y5  \
	INS            Y15, Y6, Y6  \
	INS            Y15, Y7, Y7

#define WIDE(INS, LASTINS) \
	MOVQ           keys+0(FP), AX      \
	MOVQ           rounds+8(FP), R9    \
	MOVQ           dst+16(FP), DI      \
	MOVQ           src+24(FP), SI      \
	MOVQ           n+32(FP), CX        \
	MOVQ           tweaks+48(FP), DX   \
	VMOVDQU        polys<>(SB), Y13    \
	SHIFTED                            \
sector:                                    \
	MOVQ           size+40(FP), BX     \
	VBROADCASTI128 (DX), Y12           \
	ADDQ           $16, DX             \
	SPREAD(0, Y8)                      \
	SPREAD(1, Y9)                      \
	SPREAD(2, Y10)                     \
	SPREAD(3, Y11)                     \
group:                                     \
	VPXOR          0(SI), Y8, Y0       \
	VPXOR          32(SI), Y9, Y1      \
	VPXOR          64(SI), Y10, Y2     \
	VPXOR          96(SI), Y11, Y3     \
	VMOVDQU        Y8, 0(SP)           \
	VMOVDQU        Y9, 32(SP)          \
	VMOVDQU        Y10, 64(SP)         \
	VMOVDQU        Y11, 96(SP)         \
	AHEAD(Y8)                          \
	AHEAD(Y9)                          \
	AHEAD(Y10)                         \
	AHEAD(Y11)                         \
	VPXOR          128(SI), Y8, Y4     \
	VPXOR          160(SI), Y9, Y5     \
	VPXOR          192(SI), Y10, Y6    \
	VPXOR          224(SI), Y11, Y7    \
	ROUND16(VPXOR, (AX))               \
	CMPQ           R9, $10             \
	JEQ            group10             \
	FIRST4(ROUND16, INS)               \
group10:                                   \
	LAST10(ROUND16, INS, LASTINS)      \
	VPXOR          0(SP), Y0, Y0       \
	VPXOR          32(SP), Y1, Y1      \
	VPXOR          64(SP), Y2, Y2      \
	VPXOR          96(SP), Y3, Y3      \
	VPXOR          Y8, Y4, Y4          \
	VPXOR          Y9, Y5, Y5          \
	VPXOR          Y10, Y6, Y6         \
	VPXOR          Y11, Y7, Y7         \
	VMOVDQU        Y0, 0(DI)           \
	VMOVDQU        Y1, 32(DI)          \
	VMOVDQU        Y2, 64(DI)          \
	VMOVDQU        Y3, 96(DI)          \
	VMOVDQU        Y4, 128(DI)         \
	VMOVDQU        Y5, 160(DI)         \
	VMOVDQU        Y6, 192(DI)         \
	VMOVDQU        Y7, 224(DI)         \
	AHEAD(Y8)                          \
	AHEAD(Y9)                          \
	AHEAD(Y10)                         \
	AHEAD(Y11)                         \
	ADDQ           $256, SI            \
	ADDQ           $256, DI            \
	SUBQ           $256, BX            \
	JNZ            group               \
	DECQ           CX                  \
	JNZ            sector              \
	VZEROALL                           \
	RET

// func encryptVAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)
TEXT ·encryptVAES(SB), NOSPLIT, $128-56
	WIDE(VAESENC, VAESENCLAST)

// func decryptVAES(keys *byte, rounds int, dst, src *byte, n, size int, tweaks *byte)
TEXT ·decryptVAES(SB), NOSPLIT, $128-56
	WIDE(VAESDEC, VAESDECLAST)
