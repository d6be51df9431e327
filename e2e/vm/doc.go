// Package vm tests what needs another kernel than that of the machine that it
// runs on. "e2e/vm/run" boots virtual machines with run-in-vm and runs the tests
// of this package, and those of packages that act on the kernel, in each: with
// cgroup v1 and v2, as root and as a user, with and without systemd.
package vm
