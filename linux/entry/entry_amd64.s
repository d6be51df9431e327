//go:build !starter

#include "textflag.h"

// singularity_match compares the word at SI with the list at R8 (see the word
// lists in entry.go). AX is the flag of the entry that matched, 0 for none; an
// option joined to its value by "=" counts as one without a value.
// Uses AX, R9, CX, DX.
TEXT singularity_match<>(SB), NOSPLIT|NOFRAME, $0
next:
	MOVBLZX (R8), AX
	INCQ    R8
	TESTL   AX, AX
	JEQ     done
	MOVQ    SI, R9
compare:
	MOVBLZX (R8), CX
	INCQ    R8
	MOVBLZX (R9), DX
	TESTL   CX, CX
	JEQ     ended
	INCQ    R9
	CMPL    CX, DX
	JEQ     compare
skip:
	MOVBLZX (R8), CX
	INCQ    R8
	TESTL   CX, CX
	JNE     skip
	JMP     next
ended:
	TESTL   DX, DX
	JEQ     done
	TESTL   $8, AX
	JNE     done
	CMPL    DX, $0x3d
	JNE     next
	TESTL   $2, AX
	JEQ     next
	MOVL    $1, AX
done:
	RET

// singularity_helper makes CX nonzero if the setuid helper is installed. It uses
// other registers but R13.
TEXT singularity_helper<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ  ·helper+8(SB), CX
	TESTQ CX, CX
	JEQ   none
	CMPQ  CX, $3000
	JHI   none
	MOVQ  ·helper+0(SB), SI
	SUBQ  $4096, SP                // the path, then struct stat
	MOVQ  SP, DI
	CLD
	REP
	MOVSB
	MOVB  $0, (DI)
	MOVQ  $262, AX                 // newfstatat(AT_FDCWD, path, &stat, 0)
	MOVQ  $-100, DI
	MOVQ  SP, SI
	LEAQ  3584(SP), DX
	XORL  R10, R10
	SYSCALL
	MOVL  3608(SP), CX             // st_mode
	ADDQ  $4096, SP
	ANDL  $0x800, CX               // S_ISUID
	TESTQ AX, AX
	JEQ   known
none:
	XORL  CX, CX
known:
	RET

// singularity_entry is where the kernel starts the program: SP points at argc,
// the arguments, a null, the environment, a null, the auxiliary vector.
TEXT singularity_entry(SB), NOSPLIT|NOFRAME, $0
	MOVQ  $1, ·present(SB)
	MOVQ  $302, AX                 // prlimit64(0, RLIMIT_NOFILE, 0, &fileLimit)
	XORL  DI, DI
	MOVL  $7, SI
	XORL  DX, DX
	LEAQ  ·fileLimit(SB), R10
	SYSCALL

	LEAQ  16(SP), BX               // argv[1]
global:
	MOVQ  (BX), SI
	ADDQ  $8, BX
	TESTQ SI, SI
	JEQ   go
	MOVQ  ·globalWords(SB), R8
	CALL  singularity_match<>(SB)
	CMPL  AX, $1
	JEQ   global
	CMPL  AX, $4
	JNE   go
	MOVQ  BX, R13                  // the word behind the verb

	MOVQ  $14, AX                  // rt_sigprocmask(SIG_BLOCK, &blocked, &savedMask, 8)
	XORL  DI, DI
	LEAQ  ·blocked(SB), SI
	LEAQ  ·savedMask(SB), DX
	MOVL  $8, R10
	SYSCALL
	TESTQ AX, AX
	JNE   go
	MOVQ  $1, ·masked(SB)

	MOVQ  $102, AX                 // getuid
	SYSCALL
	TESTQ AX, AX
	JEQ   go
	MOVQ  AX, ·savedUID(SB)
	MOVQ  $104, AX                 // getgid
	SYSCALL
	MOVQ  AX, ·savedGID(SB)
	MOVQ  $115, AX                 // getgroups(256, &groups)
	MOVL  $256, DI
	LEAQ  ·groups(SB), SI
	SYSCALL
	TESTQ AX, AX
	JLT   go                       // more groups than fit
	MOVQ  AX, ·groupsLen(SB)

	MOVQ  (SP), R12                // argc
	LEAQ  16(SP)(R12*8), BX        // environment
environ:
	MOVQ  (BX), SI
	ADDQ  $8, BX
	TESTQ SI, SI
	JEQ   auxv
	MOVQ  ·envWords(SB), R8
	CALL  singularity_match<>(SB)
	TESTL AX, AX
	JNE   go
	JMP   environ
auxv:
	MOVQ  (BX), AX
	MOVQ  8(BX), CX
	ADDQ  $16, BX
	TESTQ AX, AX
	JEQ   go                       // no AT_SECURE: an unknown kernel
	CMPQ  AX, $23                  // AT_SECURE
	JNE   auxv
	TESTQ CX, CX
	JNE   go
	MOVQ  R13, BX
option:
	MOVQ  (BX), SI
	ADDQ  $8, BX
	TESTQ SI, SI
	JEQ   go
	CMPB  (SI), $0x2d
	JNE   image
	MOVQ  ·optionWords(SB), R8
	CALL  singularity_match<>(SB)
	CMPL  AX, $1
	JEQ   option
	CMPL  AX, $2
	JNE   go
	MOVQ  (BX), SI                 // the value
	ADDQ  $8, BX
	TESTQ SI, SI
	JEQ   go
	JMP   option
image:
	MOVQ  SI, R9
colon:
	MOVBLZX (R9), CX
	INCQ  R9
	CMPL  CX, $0x3a
	JEQ   go
	TESTL CX, CX
	JNE   colon
	SUBQ  $256, SP                 // room for struct stat, 144 bytes
	MOVQ  $262, AX                 // newfstatat(AT_FDCWD, image, &stat, 0)
	MOVQ  $-100, DI
	MOVQ  SP, DX
	XORL  R10, R10
	SYSCALL
	MOVL  24(SP), CX               // st_mode
	ADDQ  $256, SP
	TESTQ AX, AX
	JNE   go
	ANDL  $0xf000, CX
	CMPL  CX, $0x4000              // S_IFDIR
	JNE   go
	CALL  singularity_helper<>(SB)
	TESTL CX, CX
	JNE   go
	MOVQ  $272, AX                 // unshare(CLONE_NEWUSER)
	MOVQ  $0x10000000, DI
	SYSCALL
	TESTQ AX, AX
	JNE   go
	MOVQ  $1, ·unshared(SB)
go:
	JMP   _rt0_amd64_linux(SB)
