package action

import (
	"io"
	"os"

	"singularity/conf"
	"singularity/image"
	"singularity/linux/entry"
	"singularity/plan"
)

// Extensions are parts of a start that need more than the program singularity
// links. They come from singularity-cli, and those about keys from singularity-unlock
// too; all may be nil.
type Extensions struct {
	// Limit makes a control group with the limits that o asks for. It returns
	// nil where o asks for none and none can be made.
	Limit func(o *plan.Options, c *conf.Config, log *Log) (Group, error)
	// Unlock finds the key of an encrypted image and opens its root partition.
	// It returns the squashfs in it, and the secret that a server process of
	// this program opens it again with. If passphrase is not nil it has been asked
	// for already.
	Unlock func(im *image.Image, o *plan.Options, passphrase []byte, log *Log) (plain *io.SectionReader, secret []byte, err error)
	// Ask asks for the passphrase of an encrypted image.
	Ask func() ([]byte, error)
	// Network makes the network n, with the words of --network-args.
	Network func(n plan.Network, words []string, c *conf.Config, log *Log) (*Network, error)
	// UserNet returns the program of plan.UserNets that this host has, or "".
	UserNet func() string
	// Leave moves this process out of the control groups of its batch job.
	Leave func(c *conf.Config, log *Log)
	// Program is the path of singularity-cli for that program itself.
	Program string
}

// A Group is a control group for a container.
type Group interface {
	// Procs are files that a process enters the group by, as
	// container.Hooks.Procs wants them.
	Procs() []*os.File
	// Path names the group below the mount of its hierarchy.
	Path() string
	// Remove kills what is left in the group and removes it.
	Remove() error
}

// Network is a container's network, as Extensions.Network made it.
type Network struct {
	Facts  plan.NetFacts
	Netns  *os.File            // as container.Hooks has them
	ID     string              // container.Hooks.NetID
	Attach func(pid int) error // the same
	End    func() error        // undoes it
}

// Networked tells whether the start may need Extensions.Network.
func (v *Invocation) Networked() bool { return networked(&v.Options) }

func networked(o *plan.Options) bool {
	return (o.Net || o.Boot) && !(len(o.Network) == 1 && o.Network[0] == "none")
}

// Limited tells whether the start needs Extensions.Limit.
func (v *Invocation) Limited() bool {
	return v.Options.ApplyCgroups != "" || v.Options.Limits.Any()
}

// Encrypted tells whether a start of the image at path needs Extensions.Unlock.
func Encrypted(path string) bool {
	im, err := image.Open(path)
	if err != nil {
		return false
	}
	defer im.Close()
	return im.Format.Encrypted()
}

// KeyVariables are the environment variables that lead to the key of an
// encrypted image. No container and no script gets to see them.
func KeyVariables() []string {
	return []string{"SINGULARITY_ENCRYPTION_PASSPHRASE", "SINGULARITY_ENCRYPTION_PEM_PATH"}
}

// forgetKeys keeps KeyVariables from the program in the container (SC-125).
func forgetKeys() {
	for _, k := range KeyVariables() {
		os.Unsetenv(k)
	}
}

// unlockProgram starts containers from encrypted images.
const unlockProgram = "singularity-unlock"

// needKey hands a start of an encrypted image over to the program that can
// unlock it.
func (s *starter) needKey() error {
	if !s.image.Format.Encrypted() {
		forgetKeys()
		return nil
	}
	if s.ext.Unlock == nil {
		if err := shareFileEnv(s.o); err != nil {
			return err
		}
		return become(unlockProgram, s.argv)
	}
	// Each container reads its image by itself: a holder would keep the key
	// for whoever starts the next one.
	s.o.NoSharedMount = true
	return nil
}

// unlock opens an encrypted image. What is checked by a hash tree is the
// ciphertext, the header among it.
func (s *starter) unlock() error {
	if !s.image.Format.Encrypted() {
		return nil
	}
	defer forgetKeys()
	defer clear(s.passphrase)
	var err error
	s.image.Plain, s.secret, err = s.ext.Unlock(s.image, s.o, s.passphrase, s.log)
	return err
}

// Start starts the container, or the instance, that v and argv ask for and
// returns the exit status.
func Start(v *Invocation, argv []string, ext Extensions, log *Log) (int, error) {
	for _, note := range v.Notes {
		log.Warning(note)
	}
	if verb := LookupVerb(v.Verb); verb != nil && verb.Set&Instances != 0 {
		return startInstance(v, argv, ext, log)
	}
	s := newStarter(v, ext, log)
	s.argv = argv
	return s.start(v.Image)
}

func newStarter(v *Invocation, ext Extensions, log *Log) *starter {
	if v.Limited() {
		// A holder would live in the group of whoever came first.
		v.Options.NoSharedMount = true
	}
	return &starter{verb: v.Verb, o: &v.Options, args: v.Args, ext: ext, log: log, entry: entry.Read()}
}

// limit makes the control group of the container. The returned function ends it.
func (s *starter) limit(p *plan.Plan) (procs []*os.File, end func(), err error) {
	wanted := s.instance != "" || s.o.ApplyCgroups != "" || s.o.Limits.Any()
	if s.ext.Limit == nil || !wanted {
		return nil, func() {}, nil
	}
	g, err := s.ext.Limit(s.o, s.conf, s.log)
	if err != nil {
		return nil, nil, err
	}
	if g == nil {
		return nil, func() {}, nil
	}
	s.group = g.Path()
	// Security: a user owns the group, and would find its files below /sys
	// (SC-034). A program that changes its own limits there is stopped; one
	// that asks a service on the host to is not.
	p.Mounts = append(p.Mounts, plan.Mount{Source: "/sys/fs/cgroup", Destination: "/sys/fs/cgroup", ReadOnly: true, Optional: true, Tag: "kernel"})
	return g.Procs(), func() {
		if err := g.Remove(); err != nil {
			s.log.Warning("Cannot remove the control group of the container: " + err.Error())
		}
	}, nil
}
