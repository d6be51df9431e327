package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"singularity/action"
	"singularity/host"
)

func newPolicyCommand(log *action.Log) *cobra.Command {
	c := &cobra.Command{
		Use:     "policy",
		Short:   "Tell what the administrator's rules come to",
		Long:    "Tell what the administrator's files, the host and the options of a start come to, before it is made.",
		Example: "  $ singularity policy explain --nv --bind /data image.sif",
	}
	c.AddCommand(newPolicyExplainCommand(log))
	return c
}

func newPolicyExplainCommand(log *action.Log) *cobra.Command {
	var words []string
	var asJSON bool
	var user string
	c := &cobra.Command{
		Use:   "explain [options] <image>",
		Short: "Tell what a start would come to, and which rule decides",
		Long: "Go through a start of an image on this host, rule by rule, and start nothing: mode, limits on images, execution control list, signature, mount, " +
			"namespaces, network, binds, capabilities, limits of resources. The options are those of exec, before or behind the image; variables of the environment count too. " +
			"\n\nEach row is allowed, refused, ignored (the start goes on without what was asked for) or info, and names the directive or file that decides. " +
			"The exit status is 0 if the container would start, else 1.",
		Example: "  $ singularity policy explain image.sif\n" +
			"  $ singularity policy explain image.sif --bind /data --add-caps net_raw --json\n" +
			"  $ sudo singularity policy explain --user alice /srv/debian.sif",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if user != "" {
				done, err := explainAs(c.OutOrStdout(), user, asJSON, words, args[0])
				if done || err != nil {
					return err
				}
			}
			e, err := explain(log, words, args[0])
			if err != nil {
				return err
			}
			if asJSON {
				err = writeIndented(c.OutOrStdout(), e)
			} else {
				err = e.write(c.OutOrStdout())
			}
			if err == nil && !e.Allowed {
				err = exitOne(errors.New("the container would not start"))
			}
			return err
		},
	}
	addFlags(c.Flags(), action.Flags, action.Exec)
	c.Flags().VisitAll(func(f *pflag.Flag) { f.Value = &recordedFlag{Value: f.Value, name: f.Name, words: &words} })
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
	c.Flags().StringVar(&user, "user", "", "explain for another `user`; for root only")
	return c
}

// A recordedFlag notes how it was set, for the parser of package action.
type recordedFlag struct {
	pflag.Value
	name  string
	words *[]string
}

func (f *recordedFlag) Set(s string) error {
	*f.words = append(*f.words, "--"+f.name+"="+s)
	return f.Value.Set(s)
}

// explainAs lets the program explain as another user, with the rights of that
// user, and with nothing of the caller's environment. It reports false if the
// caller is that user.
func explainAs(out io.Writer, name string, asJSON bool, words []string, image string) (done bool, err error) {
	u, err := host.LookupName(name)
	if err != nil {
		return false, err
	}
	if u.UID == os.Getuid() {
		return false, nil
	}
	if os.Getuid() != 0 {
		return false, action.Fatal(fmt.Errorf("cannot explain for user %q: that requires root privileges", name), "run it with sudo")
	}
	groups, err := host.GroupsOf(u)
	if err != nil {
		return false, err
	}
	cmd := exec.Command("/proc/self/exe", slices.Concat([]string{"policy", "explain"}, words, []string{"--json=" + strconv.FormatBool(asJSON), "--", image})...)
	cmd.Args[0] = "singularity"
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/bin", "HOME=" + u.Home, "LC_ALL=C"}
	if file := os.Getenv("SINGULARITY_CONFIG_FILE"); file != "" {
		cmd.Env = append(cmd.Env, "SINGULARITY_CONFIG_FILE="+file)
	}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	credential := &syscall.Credential{Uid: uint32(u.UID), Gid: uint32(u.GID)}
	for _, g := range groups {
		credential.Groups = append(credential.Groups, uint32(g))
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); cmd.ProcessState == nil {
		return false, fmt.Errorf("cannot explain for user %q: %w", name, err)
	}
	if code := cmd.ProcessState.ExitCode(); code != 0 {
		return true, exitStatus(code)
	}
	return true, nil
}

// The results of a rule.
const (
	ruleAllowed = "allowed"
	ruleRefused = "refused"
	ruleIgnored = "ignored"
	ruleInfo    = "info"
)

// A policyRule is one row of an explanation.
type policyRule struct {
	Subject string `json:"subject"`
	Result  string `json:"result"`
	Text    string `json:"text"`
	Rule    string `json:"rule,omitempty"` // the directive, file or option that decides
}

// An explanation is what a start would come to.
type explanation struct {
	Image   string       `json:"image"`
	User    string       `json:"user"`
	UID     int          `json:"uid"`
	Mode    string       `json:"mode,omitempty"`
	Allowed bool         `json:"allowed"`
	Rules   []policyRule `json:"rules"`
}

func (e *explanation) add(subject, result, text, rule string) {
	if result == ruleRefused {
		e.Allowed = false
	}
	e.Rules = append(e.Rules, policyRule{subject, result, text, rule})
}

// fail adds a refusal by an error, with its hint.
func (e *explanation) fail(subject string, err error, rule string) {
	text := err.Error()
	if f, ok := errors.AsType[*action.Failure](err); ok && f.Hint != "" {
		text += " (" + f.Hint + ")"
	}
	e.add(subject, ruleRefused, text, rule)
}

func (e *explanation) write(w io.Writer) error {
	var b strings.Builder
	verdict := "the container would start"
	if !e.Allowed {
		verdict = "refused"
	}
	fmt.Fprintf(&b, "Image:   %s\nUser:    %s (uid %d)\nResult:  %s\n\n", oneLine(e.Image), oneLine(e.User), e.UID, verdict)
	width := 0
	for _, r := range e.Rules {
		width = max(width, len(r.Subject))
	}
	for _, r := range e.Rules {
		fmt.Fprintf(&b, "%-*s  %-7s  %s", width, r.Subject, r.Result, oneLine(r.Text))
		if r.Rule != "" {
			b.WriteString("  [" + oneLine(r.Rule) + "]")
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// explain explains a start of the calling user. The error is about the call;
// what would keep the container from starting is in the explanation.
func explain(log *action.Log, words []string, name string) (*explanation, error) {
	if action.Remote(name) || action.Scheme(name) == "instance" {
		return nil, action.Fatal(fmt.Errorf("cannot explain %q: it is no image on this host", name), "pull the image to a file first")
	}
	v := new(action.Invocation)
	if err := action.ParseVerb(v, action.LookupVerb("exec"), slices.Concat(words, []string{"--", name, "true"}), os.Getenv); err != nil {
		return nil, err
	}
	v.Options.ConfigFile = os.Getenv("SINGULARITY_CONFIG_FILE")
	x := &explainer{v: v, o: &v.Options, log: log, e: &explanation{Image: name, UID: os.Getuid(), Allowed: true}}
	u, err := host.CurrentUser()
	if x.e.User = u.Name; err != nil {
		x.e.User = strconv.Itoa(os.Getuid())
	}
	x.explain(context.Background())
	return x.e, nil
}
