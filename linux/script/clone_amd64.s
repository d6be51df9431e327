//go:build !race && !starter

#include "textflag.h"

// func clone3(a *cloneArgs, size uintptr, c *child) (pid, errno uintptr)
TEXT ·clone3(SB), NOSPLIT, $0-40
	MOVQ a+0(FP), DI
	MOVQ size+8(FP), SI
	MOVQ c+16(FP), R12             // the kernel keeps it
	MOVQ $435, AX                  // clone3
	SYSCALL
	TESTQ AX, AX
	JEQ  inChild
	JLT  failed
	MOVQ AX, pid+24(FP)
	MOVQ $0, errno+32(FP)
	RET
failed:
	NEGQ AX
	MOVQ $0, pid+24(FP)
	MOVQ AX, errno+32(FP)
	RET
inChild:
	XORL BP, BP
	SUBQ $16, SP
	MOVQ R12, 0(SP)
	CALL ·runChild(SB)
	INT  $3
