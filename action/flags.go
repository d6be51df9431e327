package action

// Kind tells how a flag takes values.
type Kind int

// The kinds of flags. A Bool may stand alone; all others take a value.
const (
	Bool   Kind = iota
	String      // the last value given counts
	List        // values separated by commas; repeated flags add
	Append      // values taken whole; repeated flags add
	Map         // NAME=value words separated by commas; repeated flags add
)

// Verbs is a set of action commands.
type Verbs uint

// The action commands, and all of them.
const (
	Exec Verbs = 1 << iota
	Run
	Shell
	Test

	AnyVerb = Exec | Run | Shell | Test
)

// Flag is one row of a flag table. Help, completion, manual pages and the
// parser all read it, so a new flag is one row here and one field in
// plan.Options.
type Flag struct {
	Name  string // long name, without dashes
	Short string // one letter, or empty
	Kind  Kind
	Verbs Verbs
	// Env are keys of environment variables without the SINGULARITY_ prefix, in
	// the order in which they count.
	Env []string
	// EnvSep, if not 0, makes values of the environment add to those of the
	// command line; it separates values within a variable.
	EnvSep     byte
	Value      string // what help calls the value
	Help       string
	Hidden     bool   // works, but help does not list it
	Deprecated string // what to use instead; empty for a flag in good standing
	// Field returns a pointer to where the value goes: *bool for a Bool,
	// *string for a String, else *[]string.
	Field func(*Invocation) any
}

// Flags are the flags of the action commands, in the order of their names.
var Flags = []Flag{
	{Name: "bind", Short: "B", Kind: Append, Verbs: AnyVerb, Env: []string{"BIND", "BINDPATH"}, EnvSep: ',', Value: "spec",
		Help:  "mount a path of the host: src[:dest[:opts]], several separated by commas; opts are ro, rw, image-src=PATH and id=N",
		Field: func(v *Invocation) any { return &v.Options.Bind }},
	{Name: "cleanenv", Short: "e", Kind: Bool, Verbs: AnyVerb, Env: []string{"CLEANENV"},
		Help:  "start with a clean environment instead of that of the host",
		Field: func(v *Invocation) any { return &v.Options.CleanEnv }},
	{Name: "contain", Short: "c", Kind: Bool, Verbs: AnyVerb, Env: []string{"CONTAIN"},
		Help:  "use a minimal /dev and empty directories in place of $HOME, /tmp and /var/tmp",
		Field: func(v *Invocation) any { return &v.Options.Contain }},
	{Name: "cwd", Kind: String, Verbs: AnyVerb, Env: []string{"CWD", "TARGET_CWD"}, Value: "path",
		Help:  "working directory in the container",
		Field: func(v *Invocation) any { return &v.Options.Cwd }},
	{Name: "env", Kind: Map, Verbs: AnyVerb, Value: "NAME=value",
		Help:  "set environment variables in the container; may be repeated, and a value with commas be quoted",
		Field: func(v *Invocation) any { return &v.Options.Env }},
	{Name: "fakeroot", Short: "f", Kind: Bool, Verbs: AnyVerb, Env: []string{"FAKEROOT"},
		Help:  "be uid 0 in the container, in a user namespace",
		Field: func(v *Invocation) any { return &v.Options.Fakeroot }},
	{Name: "home", Short: "H", Kind: String, Verbs: AnyVerb, Env: []string{"HOME"}, Value: "spec",
		Help:  "home directory: src, or src:dest",
		Field: func(v *Invocation) any { return &v.Options.Home }},
	{Name: "keep-privs", Kind: Bool, Verbs: AnyVerb, Env: []string{"KEEP_PRIVS"},
		Help:  "let root keep its capabilities in the container",
		Field: func(v *Invocation) any { return &v.Options.KeepPrivs }},
	{Name: "mount", Kind: Append, Verbs: AnyVerb, Env: []string{"MOUNT"}, EnvSep: '\n', Value: "spec",
		Help:  "mount a path of the host; fields are type=bind, source=SRC, destination=DEST, ro, image-src=PATH and id=N, separated by commas",
		Field: func(v *Invocation) any { return &v.Options.Mount }},
	{Name: "no-eval", Kind: Bool, Verbs: AnyVerb, Env: []string{"NO_EVAL"},
		Help:  "set environment values as they are, without evaluating them by a shell",
		Field: func(v *Invocation) any { return &v.Options.NoEval }},
	{Name: "no-home", Kind: Bool, Verbs: AnyVerb, Env: []string{"NO_HOME"},
		Help:  "do not mount the home directory (the working directory may still be)",
		Field: func(v *Invocation) any { return &v.Options.NoHome }},
	{Name: "no-mount", Kind: List, Verbs: AnyVerb, Env: []string{"NO_MOUNT"}, Value: "list",
		Help:  "leave out mounts: proc, sys, dev, devpts, home, tmp, hostfs, cwd, bind-paths or an absolute destination",
		Field: func(v *Invocation) any { return &v.Options.NoMount }},
	{Name: "no-privs", Kind: Bool, Verbs: AnyVerb, Env: []string{"NO_PRIVS"},
		Help:  "drop all capabilities of root in the container",
		Field: func(v *Invocation) any { return &v.Options.NoPrivs }},
	{Name: "no-umask", Kind: Bool, Verbs: AnyVerb, Env: []string{"NO_UMASK"},
		Help:  "use umask 0022 in the container instead of that of the caller",
		Field: func(v *Invocation) any { return &v.Options.NoUmask }},
	{Name: "pwd", Kind: String, Verbs: AnyVerb, Env: []string{"PWD", "TARGET_PWD"}, Value: "path", Hidden: true,
		Help:  "synonym of --cwd",
		Field: func(v *Invocation) any { return &v.Options.Cwd }},
	{Name: "shell", Short: "s", Kind: String, Verbs: Shell, Env: []string{"SHELL"}, Value: "path",
		Help:  "program to use as the shell",
		Field: func(v *Invocation) any { return &v.Options.Shell }},
	{Name: "tmpdir", Kind: String, Verbs: AnyVerb, Env: []string{"TMPDIR"}, Value: "dir", Hidden: true,
		Help:  "directory for temporary files",
		Field: func(v *Invocation) any { return &v.Options.TmpDir }},
	{Name: "userns", Short: "u", Kind: Bool, Verbs: AnyVerb, Env: []string{"USERNS", "UNSHARE_USERNS"},
		Help:  "run in a new user namespace",
		Field: func(v *Invocation) any { return &v.Options.Userns }},
	{Name: "writable", Short: "w", Kind: Bool, Verbs: AnyVerb, Env: []string{"WRITABLE"},
		Help:  "write to the image itself",
		Field: func(v *Invocation) any { return &v.Options.Writable }},
}

// GlobalFlags stand before the command, in the order of their names.
var GlobalFlags = []Flag{
	{Name: "config", Short: "c", Kind: String, Env: []string{"CONFIG_FILE"}, Value: "file",
		Help:  "use another singularity.conf",
		Field: func(v *Invocation) any { return &v.Options.ConfigFile }},
	{Name: "debug", Short: "d", Kind: Bool, Env: []string{"DEBUG"},
		Help:  "print debugging messages (highest verbosity)",
		Field: func(v *Invocation) any { return &v.Debug }},
	{Name: "help", Short: "h", Kind: Bool,
		Help:  "print help and exit",
		Field: func(v *Invocation) any { return &v.Help }},
	{Name: "nocolor", Kind: Bool,
		Help:  "print without colour",
		Field: func(v *Invocation) any { return &v.NoColor }},
	{Name: "quiet", Short: "q", Kind: Bool,
		Help:  "print warnings and errors only",
		Field: func(v *Invocation) any { return &v.Quiet }},
	{Name: "silent", Short: "s", Kind: Bool,
		Help:  "print errors only",
		Field: func(v *Invocation) any { return &v.Silent }},
	{Name: "verbose", Short: "v", Kind: Bool,
		Help:  "print more messages",
		Field: func(v *Invocation) any { return &v.Verbose }},
	{Name: "version", Kind: Bool,
		Help:  "print the version and exit",
		Field: func(v *Invocation) any { return &v.Version }},
}

// Verb is an action command as help describes it.
type Verb struct {
	Name    string
	Set     Verbs // its own member of Verbs
	MinArgs int   // positional arguments that it needs
	Use     string
	Short   string
	Long    string
	Example string
}

// VerbTable lists the action commands.
var VerbTable = []Verb{
	{Name: "exec", Set: Exec, MinArgs: 2,
		Use:   "exec [options] <container> <command> [args...]",
		Short: "Run a command within a container",
		Long: "Start a container from an image and run a command of your choice in it. " + imageHelp +
			"\n\nOptions end at the image: what follows it belongs to the command. The exit status is that of the command.",
		Example: "  $ singularity exec debian.sif cat /etc/debian_version\n" +
			"  $ singularity exec --bind /data:/mnt debian.sif ls /mnt\n" +
			"  $ singularity exec --cleanenv --env LANG=C debian.sif env"},
	{Name: "run", Set: Run, MinArgs: 1,
		Use:   "run [options] <container> [args...]",
		Short: "Run the default command of a container",
		Long: "Start a container from an image and run its runscript. " + imageHelp +
			"\n\nArguments after the image are passed to the runscript. The exit status is that of the runscript.",
		Example: "  $ singularity run debian.sif\n  $ singularity run debian.sif --verbose input.txt\n  $ ./debian.sif input.txt"},
	{Name: "shell", Set: Shell, MinArgs: 1,
		Use:     "shell [options] <container> [args...]",
		Short:   "Run a shell within a container",
		Long:    "Start a container from an image and open an interactive shell in it. " + imageHelp,
		Example: "  $ singularity shell debian.sif\n  $ singularity shell --shell /bin/zsh debian.sif"},
	{Name: "test", Set: Test, MinArgs: 1,
		Use:     "test [options] <container> [args...]",
		Short:   "Run the tests of a container",
		Long:    "Start a container from an image and run the test script that its definition file set. " + imageHelp,
		Example: "  $ singularity test debian.sif"},
}

const imageHelp = "The image is a SIF file, a squashfs or ext3 file, or a directory (a sandbox)."
