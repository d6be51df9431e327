// Package host finds out facts about this machine: who the caller is, which
// subordinate ids they own, and, when something failed, which feature of the
// kernel is missing and how to get it.
//
// It reads /etc/passwd, /etc/group, /etc/subuid and /etc/subgid itself, since
// without cgo there is no libc to ask. What they do not hold is asked from the
// name service (LDAP, SSSD, systemd) through the programs getent and getsubids
// of fixed directories, with a clean environment, a time limit and a limit of
// output. A user whom /etc/passwd lists costs one small file and no process.
//
// Trust: the files and programs are root's. They are still read with limits,
// and nothing here decides about access: the kernel does, with the ids that the
// process has. Names are not checked for characters that other files cannot
// hold; whoever writes them to a file does that.
//
// The probes of kernel.go (UserNamespaces, FUSE, Overlay, Explain) are for
// error messages. They run after a failure only and never on the way of a
// start that works.
//
// Files: users.go, subid.go (ranges, newuidmap), subidedit.go (changing the
// files of ranges), gpu.go and ldcache.go (drivers, libraries), edits.go (what
// CDI devices add), kernel.go, rights.go (what a process may have, and what can
// confine it), mounts.go, report.go (facts for people).
package host
