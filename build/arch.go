package build

import (
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"singularity/linux/safepath"
)

// programs are files that most images have, to tell the architecture by.
var programs = []string{
	"/bin/sh", "/bin/bash", "/bin/busybox", "/usr/bin/env", "/bin/ls", "/usr/bin/coreutils", "/sbin/ldconfig", "/usr/bin/python3", "/sbin/init",
}

// maxArchFiles bounds the files looked at in an image without those.
const maxArchFiles = 10000

var errFound = errors.New("found")

// detectArch tells the architecture of the image: of its programs, but for
// layers that are not on disk, which say it themselves.
func (b *builder) detectArch() string {
	if b.base != nil && b.base.tree != nil {
		return b.base.arch
	}
	if b.sandbox != nil {
		return detectArch(b.sandbox)
	}
	return detectArch(b.root)
}

// detectArch tells the architecture of the programs below root as GOARCH
// names it, this machine's where there are none.
func detectArch(root *os.File) string {
	for _, name := range programs {
		// Security: O_NONBLOCK, as the name may be a FIFO in the image.
		f, err := safepath.Open(root, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
		if err != nil {
			continue
		}
		arch := elfArch(f)
		f.Close()
		if arch != "" {
			return arch
		}
	}
	arch, count := "", 0
	_ = walkTree(root, func(dir *os.File, name, at string, st *unix.Stat_t) error { // unreadable parts do not count
		if count++; count > maxArchFiles {
			return errFound
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
			return nil
		}
		f, err := openAt(dir, name, 0)
		if err != nil {
			return nil
		}
		defer f.Close()
		if arch = elfArch(f); arch != "" {
			return errFound
		}
		return nil
	})
	if arch == "" {
		return runtime.GOARCH
	}
	return arch
}

// elfArch reads the first bytes of an ELF file; "" if it is none. It does not
// use elf.NewFile, which reads all headers of a file that an image brought.
func elfArch(f *os.File) string {
	info, err := f.Stat()
	if err != nil || info.Mode().Type()&^fs.ModePerm != 0 {
		return ""
	}
	var b [20]byte
	if _, err := f.ReadAt(b[:], 0); err != nil || string(b[:4]) != elf.ELFMAG {
		return ""
	}
	little := elf.Data(b[elf.EI_DATA]) == elf.ELFDATA2LSB
	wide := elf.Class(b[elf.EI_CLASS]) == elf.ELFCLASS64
	machine := elf.Machine(uint16(b[18]) | uint16(b[19])<<8)
	if !little {
		machine = elf.Machine(uint16(b[19]) | uint16(b[18])<<8)
	}
	endian := func(le, be string) string {
		if little {
			return le
		}
		return be
	}
	switch machine {
	case elf.EM_386:
		return "386"
	case elf.EM_X86_64:
		return "amd64"
	case elf.EM_ARM:
		return "arm"
	case elf.EM_AARCH64:
		return "arm64"
	case elf.EM_PPC64:
		return endian("ppc64le", "ppc64")
	case elf.EM_MIPS:
		if wide {
			return endian("mips64le", "mips64")
		}
		return endian("mipsle", "mips")
	case elf.EM_S390:
		return "s390x"
	case elf.EM_RISCV:
		return "riscv64"
	case elf.EM_LOONGARCH:
		return "loong64"
	}
	return ""
}
