package fusefs

// Bounds of one Prefetch, in bytes.
const (
	prefetchEach = 1 << 20 // of a file
	prefetchAll  = 4 << 20
)

// Prefetch reads the beginning of files into the cache of decompressed blocks
// while the caller is busy with mounting: the dynamic linker, the C library, the
// command that will run. It returns at once, ignores what it cannot find, and
// stops when the server does.
func (s *Server) Prefetch(paths []string) {
	s.wait.Add(1)
	go func() {
		defer s.wait.Done()
		defer func() {
			if p := recover(); p != nil {
				s.onPanic(p)
			}
		}()
		s.prefetch(paths)
	}()
}

func (s *Server) prefetch(paths []string) {
	d := new(Data)
	left := int64(prefetchAll)
	for _, path := range paths {
		id, err := s.tree.resolve(path)
		if err != nil || id&synthetic != 0 {
			continue
		}
		var a Attr
		if s.tree.attr(id, &a) != nil || a.Mode&modeType != modeRegular {
			continue
		}
		step := int64(s.stat.BlockSize)
		for off := int64(0); off < min(a.Size, prefetchEach) && left > 0; off += step {
			if s.stop.Load() {
				return
			}
			d.reset()
			if _, err := s.tree.fs.Read(id, off, int(step), d, true); err != nil {
				break // told when somebody really reads it
			}
			left -= step
		}
		d.reset()
	}
}
