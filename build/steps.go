package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"singularity/build/deffile"
	"singularity/build/source"
	"singularity/build/stepcache"
	"singularity/squashfs"
	"singularity/squashfs/compress"
)

// stepFormat is part of every key: another number makes all that is kept
// useless.
const stepFormat = "1"

// mirrorAge is how long a base system from a mirror is used: its key cannot
// tell what the mirror has by now.
const mirrorAge = 7 * 24 * time.Hour

// step is a part of making a stage.
type step struct {
	name string
	// key tells what the result depends on, besides the steps before. It is nil
	// for a script on the host, of which nobody can know; what comes after it
	// depends on the tree as it is then.
	key func(ctx context.Context) (string, error)
	run func(ctx context.Context) error
	// stored says that the result is worth keeping.
	stored bool
	// recheck says that the input may change while it is used.
	recheck bool
	// mirror says that the key does not tell what a mirror has: later steps
	// depend on what came from it.
	mirror bool
}

// steps lists the parts of the stage in their order.
func (b *builder) steps() []step {
	list := []step{b.baseStep()}
	if b.wants("files") && b.hasFiles(true) {
		list = append(list, b.filesStep("files from stages", true))
	}
	if _, ok := b.script("setup"); ok {
		list = append(list, step{name: "setup", run: func(ctx context.Context) error { return b.hostScript(ctx, "setup") }})
	}
	if b.wants("files") && (b.hasFiles(false) || b.o.FixPerms) {
		list = append(list, b.filesStep("files", false))
	} else if b.o.FixPerms {
		list = append(list, step{name: "permissions", key: constantKey(""), run: func(context.Context) error { return fixPerms(b.root) }})
	}
	return append(list, b.postSteps()...)
}

func constantKey(s string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return s, nil }
}

// baseStep is the base system with what every image has.
func (b *builder) baseStep() step {
	s := step{name: "base", run: func(ctx context.Context) error {
		if !b.inPlace {
			if err := b.bootstrap(ctx); err != nil {
				return err
			}
		}
		if err := b.layout(); err != nil {
			return err
		}
		return b.appSkeletons()
	}}
	var apps []string
	for _, a := range b.stage.Apps {
		apps = append(apps, a.Name)
	}
	pre, _ := b.script("pre")
	s.key = func(ctx context.Context) (string, error) {
		src, err := b.newSource(b.stage)
		if err != nil {
			return "", err
		}
		// From is what the provenance tells.
		parts := []string{strings.Join(apps, " "), pre.Text, b.stage.Agent(), b.stage.Value("from"), b.stage.Value("fingerprints")}
		if keyed, ok := src.(source.Keyed); ok {
			key, err := keyed.Key(ctx)
			parts = append(parts, key)
			return joinParts(parts), err
		}
		for _, k := range b.stage.Header {
			parts = append(parts, k.Name, k.Value)
		}
		return joinParts(append(parts, b.o.getenv("INCLUDE"), b.o.getenv("GPG"))), nil
	}
	switch b.stage.Agent() {
	case "scratch", "localimage":
		// To make these again costs no more than to restore them.
		s.recheck = true
	default:
		s.stored = true
		src, err := b.newSource(b.stage)
		_, keyed := src.(source.Keyed)
		s.mirror = err == nil && !keyed
	}
	return s
}

func joinParts(parts []string) string { return stepcache.NewKey(parts...).String() }

// postSteps are %post and the installation of the apps.
func (b *builder) postSteps() []step {
	blocks := b.postBlocks(b.cache != nil)
	var list []step
	for i, p := range blocks {
		s := step{name: p.name, stored: true}
		s.key = func(context.Context) (string, error) {
			parts := slices.Concat(p.args, []string{p.text}, b.containerEnv(), []string{b.o.Drivers.Vendor})
			parts = slices.DeleteFunc(parts, func(e string) bool {
				name, _, _ := strings.Cut(e, "=")
				return slices.Contains(hostOnly, name)
			})
			for _, m := range b.o.Binds {
				parts = append(parts, m.Source, m.Dest, strconv.FormatBool(m.ReadOnly))
			}
			return joinParts(parts), nil
		}
		s.run = func(ctx context.Context) error {
			if i == 0 {
				b.o.Log.Info("Running post scriptlet")
				// Security: the file must not be a link of the base system's making.
				if err := removeEntry(b.root, postLabels); err != nil {
					return err
				}
			}
			return b.runBlock(ctx, p)
		}
		list = append(list, s)
	}
	return list
}

// openCache opens the cache of steps, if one is asked for. A build does
// without one that cannot be used.
func (b *builder) openCache() {
	if b.o.StepCache == "" {
		return
	}
	if b.o.Update && !b.o.Force {
		b.o.Log.Warning("--cache-steps has no effect with --update: what is in the sandbox already is part of no step")
		return
	}
	c, err := stepcache.Open(b.o.StepCache, b.o.StepLimit)
	if err != nil {
		b.o.Log.Warning(err.Error())
		return
	}
	c.Temporary = b.o.Temporary
	b.cache = c
	if len(b.o.Binds) > 0 {
		b.o.Log.Info("Cached steps are told apart by the paths of --bind, not by what is mounted")
	}
}

// take takes the steps, or finds what they gave an earlier build.
func (b *builder) take(ctx context.Context, steps []step) error {
	// Layers need no step kept: to merge them again costs less than to restore
	// their files, and the image needs their configuration.
	if b.cache == nil || b.fromLayers() {
		for _, s := range steps {
			if err := s.run(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	epoch := b.o.getenv("SOURCE_DATE_EPOCH")
	chain := stepcache.NewKey(stepFormat, b.o.Version, runtime.GOARCH, strconv.Itoa(int(b.o.Owners)), epoch)
	for len(steps) > 0 {
		n := slices.IndexFunc(steps, func(s step) bool { return s.key == nil })
		if b.cache == nil || n == 0 {
			if err := steps[0].run(ctx); err != nil {
				return err
			}
			if steps = steps[1:]; b.cache == nil {
				continue
			}
			digest, err := treeDigest(ctx, b.root)
			if err != nil {
				return err
			}
			chain = stepcache.NewKey(stepFormat, b.o.Version, "tree", digest, epoch)
			continue
		}
		if n < 0 {
			n = len(steps)
		}
		taken, next, err := b.takeKnown(ctx, chain, steps[:n])
		if err != nil {
			return err
		}
		chain, steps = next, steps[taken:]
	}
	return nil
}

// known is what the cache tells about steps.
type known struct {
	steps []step // those whose keys are known
	parts []string
	keys  []stepcache.Key
	chain stepcache.Key    // to go on with behind them
	entry *stepcache.Entry // of the last step that was kept, nil for none
	first int              // the step after that one
}

// look computes the keys of steps and looks for what was kept.
func (b *builder) look(ctx context.Context, chain stepcache.Key, steps []step) (k known, err error) {
	k.steps, k.chain = steps, chain
	for i, s := range steps {
		part, err := s.key(ctx)
		if err != nil {
			return k, err
		}
		k.chain = stepcache.NewKey(k.chain.String(), s.name, part)
		k.keys, k.parts = append(k.keys, k.chain), append(k.parts, part)
		if !s.stored {
			continue
		}
		e := b.cache.Find(k.chain)
		if e != nil && s.mirror && time.Since(e.Made) > mirrorAge {
			e.Close()
			e = nil
		}
		switch {
		case e == nil && s.mirror:
			k.steps = steps[:i+1]
			return k, nil
		case e == nil:
			continue
		case s.mirror:
			k.chain = stepcache.NewKey("of", hex.EncodeToString(e.Digest[:]))
		}
		k.close()
		k.entry, k.first = e, i+1
	}
	return k, nil
}

func (k *known) close() {
	if k.entry != nil {
		k.entry.Close()
	}
}

// takeKnown takes steps whose keys can be known, from the last one on that the
// cache has. It returns how many it took, at least one, and the chain to go on
// with.
func (b *builder) takeKnown(ctx context.Context, chain stepcache.Key, steps []step) (int, stepcache.Key, error) {
	k, err := b.look(ctx, chain, steps)
	defer k.close()
	if err != nil {
		return 0, chain, err
	}
	if k.entry != nil {
		name := steps[k.first-1].name
		err := b.restore(ctx, k.entry)
		if ctx.Err() != nil {
			return 0, chain, ctx.Err()
		}
		if err != nil {
			b.o.Log.Warning(fmt.Sprintf("Not using the cached result of %s: %v", name, err))
			b.cache.Remove(k.keys[k.first-1])
			if err := b.clearRoot(); err != nil {
				return 0, chain, err
			}
			return b.takeKnown(ctx, chain, steps)
		}
		b.o.Log.Info(fmt.Sprintf("Using the cached result of %s (step %d of %d)", name, k.first, len(steps)))
	}
	for i := k.first; i < len(k.steps); i++ {
		s := &k.steps[i]
		if err := s.run(ctx); err != nil {
			return 0, chain, err
		}
		if b.cache == nil {
			continue
		}
		if err := b.keepStep(ctx, &k, i); err != nil {
			return 0, chain, err
		}
	}
	return len(k.steps), k.chain, nil
}

// keepStep keeps what step number i gave, if it is worth it and nothing is in
// the way.
func (b *builder) keepStep(ctx context.Context, k *known, i int) error {
	s := &k.steps[i]
	// Security: a file that was changed between the two looks at it would be
	// kept under the key of what it was.
	if again, err := s.again(ctx, k.parts[i]); err != nil || !again {
		b.o.Log.Verbose("Not keeping " + s.name + " and what follows: its input changed during the build")
		b.cache = nil
		return ctx.Err()
	}
	if !s.stored {
		return nil
	}
	digest, err := b.keep(ctx, k.keys[i])
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		b.o.Log.Warning(fmt.Sprintf("Cannot keep the result of %s: %v", s.name, err))
	}
	if s.mirror {
		k.chain = stepcache.NewKey("of", hex.EncodeToString(digest[:]))
		if err != nil {
			b.cache = nil // nobody can tell any more what later steps depend on
		}
	}
	return nil
}

// again tells whether the key of a step is still what it was.
func (s *step) again(ctx context.Context, key string) (bool, error) {
	if !s.recheck {
		return true, nil
	}
	now, err := s.key(ctx)
	return now == key, err
}

// keep stores the root file system as it is.
func (b *builder) keep(ctx context.Context, k stepcache.Key) (digest [sha256.Size]byte, err error) {
	note, err := json.Marshal(b.origin())
	if err != nil {
		return digest, err
	}
	return b.cache.Store(ctx, k, note, func(f *os.File) (int64, error) {
		w, err := squashfs.NewWriter(io.NewOffsetWriter(f, 0), squashfs.WriterOptions{
			Compression: squashfs.Zstd, Digest: sha256.Sum256, ModTime: uint32(time.Now().Unix()),
			NewEncoder: func(c squashfs.Compression, level, blockSize int) (squashfs.Encoder, error) {
				return compress.New(c.String(), level, blockSize)
			},
		})
		if err != nil {
			return 0, err
		}
		const phase = "Keeping the step"
		totals, err := PackTree(ctx, b.root, w, PackOptions{
			CapabilityV2: b.o.Owners != RealRoot, Progress: func(_ int, bytes int64) { b.o.progress(phase, bytes, 0) },
		})
		if err != nil {
			w.Abort()
			return 0, err
		}
		size, err := w.Close()
		b.o.progressDone(phase, totals.Bytes)
		return size, err
	})
}

// restore makes the root file system what it was after a step.
func (b *builder) restore(ctx context.Context, e *stepcache.Entry) error {
	if err := e.Verify(ctx); err != nil {
		return err
	}
	if err := b.clearRoot(); err != nil {
		return err
	}
	r, err := squashfs.Open(e.Content(), e.Size, squashfs.ReaderOptions{})
	if err != nil {
		return err
	}
	x, err := newExtractor(ctx, b, b.bundle.rootfs)
	if err != nil {
		return errors.Join(err, r.Close())
	}
	x.reader = r
	err = r.Each(func(name string, in *squashfs.Inode) error { return x.squashfs(r, name, in) })
	if closeErr := x.close(); !errors.Is(err, closeErr) {
		err = errors.Join(err, closeErr)
	}
	if err != nil {
		return err
	}
	o := b.origin()
	name := o.Name
	if err := json.Unmarshal(e.Note, o); err != nil {
		return err
	}
	o.Name = name
	return nil
}

// clearRoot removes what is in the root file system.
func (b *builder) clearRoot() error {
	if err := unmountBelow(b.bundle.rootfs); err != nil {
		return err
	}
	names, err := sortedNames(b.root)
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := unlink(b.root, n); err != nil {
			return err
		}
	}
	return nil
}

// hasFiles tells whether the definition copies files from stages, or from the
// host.
func (b *builder) hasFiles(fromStage bool) bool {
	isSet := func(f deffile.FileSet) bool { return (f.From != "") == fromStage && len(f.Copies) > 0 }
	return slices.ContainsFunc(b.stage.Files, isSet) ||
		!fromStage && slices.ContainsFunc(b.stage.Apps, func(a deffile.App) bool { return len(a.Files) > 0 })
}
