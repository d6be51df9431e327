# What the test profile denies is one file, which every image has.
profile singularity-e2e flags=(attach_disconnected,mediate_deleted) {
	file,
	capability,
	network,
	mount,
	umount,
	pivot_root,
	signal,
	ptrace,
	unix,
	deny /etc/group r,
}
