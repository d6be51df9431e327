#include "textflag.h"

// handler writes its siginfo to the pipe: write(pipe, info, 128). It runs on
// the thread's signal stack, calls nothing of Go, and the kernel puts every
// register back behind it. A full pipe loses the signal; 512 are waiting then.
TEXT handler<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVL ·pipe(SB), DI
	MOVL $128, DX
	MOVL $1, AX
	SYSCALL
	RET

// restorer calls rt_sigreturn.
TEXT restorer<>(SB), NOSPLIT|NOFRAME|TOPFRAME, $0-0
	MOVL $15, AX
	SYSCALL
	INT  $3

// func handlerAddresses() (handler, restorer uintptr)
TEXT ·handlerAddresses(SB), NOSPLIT, $0-16
	LEAQ handler<>(SB), AX
	MOVQ AX, handler+0(FP)
	LEAQ restorer<>(SB), AX
	MOVQ AX, restorer+8(FP)
	RET
