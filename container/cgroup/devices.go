package cgroup

import (
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Bits of the access type that the kernel hands to a device program.
const (
	deviceBlock, deviceChar              = unix.BPF_DEVCG_DEV_BLOCK, unix.BPF_DEVCG_DEV_CHAR
	accessMknod, accessRead, accessWrite = unix.BPF_DEVCG_ACC_MKNOD, unix.BPF_DEVCG_ACC_READ, unix.BPF_DEVCG_ACC_WRITE
	accessOff, majorOff, minorOff        = 0, 4, 8 // struct bpf_cgroup_dev_ctx
)

// limitDevices attaches the rules to the group of the unified hierarchy, which
// asks a program where version 1 had files.
func limitDevices(dir *os.File, rules []DeviceRule) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.CGroupDevice, Instructions: deviceProgram(rules), License: "MIT"})
	if err != nil {
		return err
	}
	defer prog.Close()
	// With the flag, programs of the groups around this one keep their say.
	// The kernel keeps the program for as long as the group lives.
	return link.RawAttachProgram(link.RawAttachProgramOptions{Target: int(dir.Fd()), Program: prog, Attach: ebpf.AttachCGroupDevice, Flags: unix.BPF_F_ALLOW_MULTI})
}

// deviceProgram answers 1, allowed, or 0 to one access. The rules are asked from
// the last to the first: the first of them that is about the access decides.
// Without any such rule it is allowed.
//
// A rule that forbids some kinds of access is about each access that has one of
// them; one that allows, about those that have no other.
func deviceProgram(rules []DeviceRule) asm.Instructions {
	code := asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, accessOff, asm.Word),
		asm.Mov.Reg32(asm.R3, asm.R2),
		asm.And.Imm32(asm.R2, 0xffff), // kind of device
		asm.RSh.Imm32(asm.R3, 16),     // kind of access
		asm.LoadMem(asm.R4, asm.R1, majorOff, asm.Word),
		asm.LoadMem(asm.R5, asm.R1, minorOff, asm.Word),
	}
	for i := len(rules) - 1; i >= 0; i-- {
		part, always := rules[i].program("after-" + itoa(int64(i)))
		code = append(code, part...)
		if always {
			// The kernel refuses a program with parts that are never reached.
			return code
		}
	}
	return append(code, asm.Mov.Imm(asm.R0, 1), asm.Return())
}

// program is the part of one rule, which ends at next, where the rule before it
// begins; and whether it decides always.
func (r *DeviceRule) program(next string) (code asm.Instructions, always bool) {
	switch r.Type {
	case "b":
		code = append(code, asm.JNE.Imm32(asm.R2, deviceBlock, next))
	case "c":
		code = append(code, asm.JNE.Imm32(asm.R2, deviceChar, next))
	}
	if mask := r.access(); mask != accessMknod|accessRead|accessWrite {
		code = append(code, asm.Mov.Reg32(asm.R1, asm.R3))
		if r.Allow {
			code = append(code, asm.And.Imm32(asm.R1, ^mask), asm.JNE.Imm32(asm.R1, 0, next))
		} else {
			code = append(code, asm.And.Imm32(asm.R1, mask), asm.JEq.Imm32(asm.R1, 0, next))
		}
	}
	if r.Major != nil && *r.Major >= 0 {
		code = append(code, asm.JNE.Imm32(asm.R4, int32(uint32(*r.Major)), next))
	}
	if r.Minor != nil && *r.Minor >= 0 {
		code = append(code, asm.JNE.Imm32(asm.R5, int32(uint32(*r.Minor)), next))
	}
	verdict := int32(0)
	if r.Allow {
		verdict = 1
	}
	always = len(code) == 0
	code = append(code, asm.Mov.Imm(asm.R0, verdict), asm.Return())
	if always {
		return code, true
	}
	// The jumps lead to an instruction that changes nothing.
	return append(code, asm.Mov.Reg(asm.R2, asm.R2).WithSymbol(next)), false
}

func (r *DeviceRule) access() int32 {
	var mask int32
	for _, c := range r.Access {
		switch c {
		case 'r':
			mask |= accessRead
		case 'w':
			mask |= accessWrite
		case 'm':
			mask |= accessMknod
		}
	}
	if mask == 0 {
		mask = accessMknod | accessRead | accessWrite
	}
	return mask
}
