#include "textflag.h"

// starter_entry is where the kernel starts the setuid helper: SP points at argc,
// the arguments, a null, the environment, a null, the auxiliary vector. Nothing
// that the caller chose may reach the Go runtime, which obeys GODEBUG, GOGC and
// others also in a setuid program, or the poller's descriptors:
//
//   - without arguments the process ends (SC-020);
//   - every variable of the environment becomes an empty word, in place, since the
//     runtime finds the auxiliary vector by walking over the environment (SC-021);
//   - every descriptor but the standard three and the request's, 3, is closed. Where
//     that fails the helper does nothing (Scrubbed).
TEXT starter_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ  (SP), R12                // argc
	TESTQ R12, R12
	JLE   refuse
	LEAQ  16(SP)(R12*8), BX        // environment
environ:
	MOVQ  (BX), SI
	ADDQ  $8, BX
	TESTQ SI, SI
	JEQ   descriptors
	MOVB  $0, (SI)
	JMP   environ
descriptors:
	MOVQ  $436, AX                 // close_range(4, ~0, 0)
	MOVL  $4, DI
	MOVL  $0xffffffff, SI
	XORL  DX, DX
	SYSCALL
	TESTQ AX, AX
	JNE   run
	MOVQ  $1, ·scrubbed(SB)
run:
	JMP   _rt0_amd64_linux(SB)
refuse:
	MOVQ  $231, AX                 // exit_group(255)
	MOVL  $255, DI
	SYSCALL
	JMP   refuse
