package action

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"singularity/plan"
)

func environ(vars ...string) func(string) string {
	return func(key string) string {
		for _, v := range vars {
			if name, value, _ := strings.Cut(v, "="); name == key {
				return value
			}
		}
		return ""
	}
}

func TestParseVerb(t *testing.T) {
	tests := []struct {
		name string
		verb string
		args []string
		env  []string
		want Invocation
	}{
		{"plain", "exec", []string{"a.sif", "ls", "-l"}, nil,
			Invocation{Image: "a.sif", Args: []string{"ls", "-l"}}},
		{"long with space and equals sign", "exec", []string{"--bind", "/a", "--bind=/b,/c", "a.sif", "ls"}, nil,
			Invocation{Image: "a.sif", Args: []string{"ls"}, Options: plan.Options{Bind: []string{"/a", "/b,/c"}}}},
		{"shorthands", "run", []string{"-B", "/a", "-B/b", "-B=/c", "-ewB/d", "a.sif"}, nil,
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Bind: []string{"/a", "/b", "/c", "/d"}, CleanEnv: true, Writable: true}}},
		{"boolean with value", "run", []string{"--contain=false", "--userns=1", "a.sif"}, []string{"SINGULARITY_CONTAIN=1"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Userns: true}}},
		{"two dashes end options", "run", []string{"-e", "--", "-e", "-w"}, nil,
			Invocation{Image: "-e", Args: []string{"-w"}, Options: plan.Options{CleanEnv: true}}},
		{"one dash is a word", "run", []string{"-", "-w"}, nil,
			Invocation{Image: "-", Args: []string{"-w"}}},
		{"map", "run", []string{"--env", "A=x,B=y", "--env", "C=1,2", "--env", `"D=a,b",A=z=1`, "--env", "D=", "a.sif"}, nil,
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Env: []string{"A=z=1", "B=y", "C=1,2", "D="}}}},
		{"list", "run", []string{"--no-mount", "proc,sys", "--no-mount=/x", "a.sif"}, []string{"SINGULARITY_NO_MOUNT=dev"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{NoMount: []string{"proc", "sys", "/x"}}}},
		{"environment appends", "run", []string{"-B", "/a", "a.sif"},
			[]string{"SINGULARITY_BIND= /b , /c\\,d ", "SINGULARITY_BINDPATH=/e", "APPTAINER_BIND=/no", "SINGULARITY_MOUNT=type=bind,src=/f,dst=/f\n\n type=bind,src=/g,dst=/g"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Bind: []string{"/a", "/b", `/c\,d`, "/e"},
				Mount: []string{"type=bind,src=/f,dst=/f", "type=bind,src=/g,dst=/g"}}}},
		{"the first key counts", "run", []string{"a.sif"},
			[]string{"SINGULARITY_TARGET_CWD=/b", "SINGULARITY_CWD=/a", "SINGULARITY_PWD=/c"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Cwd: "/a"}}},
		{"synonyms share a field", "run", []string{"--cwd=/x", "a.sif"}, []string{"SINGULARITY_PWD=/c"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Cwd: "/x"}}},
		{"the other prefix is a fallback", "run", []string{"a.sif"},
			[]string{"APPTAINER_HOME=/a", "APPTAINER_CLEANENV=yes-is-not-read", "SINGULARITY_CLEANENV=true", "APPTAINER_NO_HOME=t"},
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Home: "/a", CleanEnv: true, NoHome: true}}},
		{"blank values do not count", "run", []string{"a.sif"}, []string{"SINGULARITY_CONTAIN= "},
			Invocation{Image: "a.sif", Args: []string{}}},
		{"the shell of the shell verb", "shell", []string{"-s", "/bin/zsh", "a.sif"}, nil,
			Invocation{Image: "a.sif", Args: []string{}, Options: plan.Options{Shell: "/bin/zsh"}}},
		{"a variable for another verb", "run", []string{"a.sif"}, []string{"SINGULARITY_SHELL=/bin/zsh"},
			Invocation{Image: "a.sif", Args: []string{}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got Invocation
			if err := ParseVerb(&got, LookupVerb(tt.verb), tt.args, environ(tt.env...)); err != nil {
				t.Fatal(err)
			}
			tt.want.Verb = tt.verb
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("want - got +\n%s", diff)
			}
		})
	}
}

func TestParseVerbErrors(t *testing.T) {
	tests := []struct {
		verb string
		args []string
		env  []string
		want string
	}{
		{"exec", []string{"--nope", "a.sif", "ls"}, nil, `Error for command "exec": unknown flag: --nope`},
		{"exec", []string{"-eZ", "a.sif", "ls"}, nil, `Error for command "exec": unknown shorthand flag: 'Z' in -eZ`},
		{"run", []string{"-é", "a.sif"}, nil, `Error for command "run": unknown shorthand flag: 'é' in -é`},
		{"run", []string{"-s", "/bin/sh", "a.sif"}, nil, `Error for command "run": unknown shorthand flag: 's' in -s`},
		{"run", []string{"--bind"}, nil, `Error for command "run": flag needs an argument: --bind`},
		{"run", []string{"-eB"}, nil, `Error for command "run": flag needs an argument: 'B' in -eB`},
		{"run", []string{"--=x", "a"}, nil, `Error for command "run": bad flag syntax: --=x`},
		{"run", []string{"---x", "a"}, nil, `Error for command "run": bad flag syntax: ---x`},
		{"run", []string{"--writable=maybe", "a"}, nil,
			`Error for command "run": invalid argument "maybe" for "-w, --writable" flag: strconv.ParseBool: parsing "maybe": invalid syntax`},
		{"run", []string{"--env", "A", "a"}, nil,
			`Error for command "run": invalid argument "A" for "--env" flag: A must be formatted as key=value`},
		{"exec", []string{"a.sif"}, nil, `Error for command "exec": requires at least 2 arg(s), only received 1`},
		{"run", nil, nil, `Error for command "run": requires at least 1 arg(s), only received 0`},
		{"run", []string{"a.sif"}, []string{"SINGULARITY_FAKEROOT=perhaps"},
			`While parsing environment variables: cannot use SINGULARITY_FAKEROOT="perhaps": strconv.ParseBool: parsing "perhaps": invalid syntax`},
	}
	for _, tt := range tests {
		var v Invocation
		err := ParseVerb(&v, LookupVerb(tt.verb), tt.args, environ(tt.env...))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s %q: got %v, want %s", tt.verb, tt.args, err, tt.want)
		}
	}
}

func TestParseGlobal(t *testing.T) {
	var v Invocation
	rest, err := ParseGlobal(&v, []string{"-dq", "--nocolor", "-c", "x.conf", "exec", "-e", "a"}, environ("SINGULARITY_CONFIG_FILE=y.conf"))
	want := Invocation{Debug: true, Quiet: true, NoColor: true, Options: plan.Options{ConfigFile: "x.conf"}}
	if diff := cmp.Diff(want, v); err != nil || diff != "" {
		t.Errorf("%v, want - got +\n%s", err, diff)
	}
	if diff := cmp.Diff([]string{"exec", "-e", "a"}, rest); diff != "" {
		t.Error(diff)
	}
	v = Invocation{}
	if _, err := ParseGlobal(&v, nil, environ("SINGULARITY_DEBUG=1", "APPTAINER_CONFIG_FILE=z")); err != nil || !v.Debug || v.Options.ConfigFile != "z" {
		t.Errorf("from the environment: %+v, %v", v, err)
	}
}

// Each variable of each flag, alone, sets the field of the flag as the flag does,
// for every verb that has the flag; the flag wins over the variable.
func TestEveryVariable(t *testing.T) {
	for _, f := range Flags {
		value, other := "one=1", "two=2"
		if f.Kind == Bool {
			value, other = "true", "false"
		}
		var given, both Invocation
		for i := range VerbTable {
			verb := &VerbTable[i]
			if verb.Set&f.Verbs == 0 {
				continue
			}
			parse := func(v *Invocation, getenv func(string) string, flags ...string) any {
				*v = Invocation{}
				if err := ParseVerb(v, verb, append(flags, "image", "a", "b"), getenv); err != nil {
					t.Fatalf("--%s: %v", f.Name, err)
				}
				return f.Field(v)
			}
			want := parse(&given, environ(), "--"+f.Name+"="+value)
			for _, key := range f.Env {
				for _, prefix := range envPrefixes {
					if prefix == "" && !f.Bare {
						continue
					}
					var v Invocation
					if diff := cmp.Diff(want, parse(&v, environ(prefix+key+"="+value))); diff != "" {
						t.Errorf("%s%s, %s: want as --%s - got +\n%s", prefix, key, verb.Name, f.Name, diff)
					}
				}
				got := parse(&both, environ("SINGULARITY_"+key+"="+other), "--"+f.Name+"="+value)
				if added := !cmp.Equal(want, got); added != (f.Name == "bind" || f.Name == "mount") {
					t.Errorf("--%s and SINGULARITY_%s give %v", f.Name, key, got)
				}
			}
		}
	}
}

// Of several keys the first that has a value counts, and the prefixed one before
// the bare one; a bad boolean is fatal under each.
func TestVariablesInOrder(t *testing.T) {
	for _, f := range Flags {
		var all []string
		for _, prefix := range envPrefixes {
			if prefix == "" && !f.Bare {
				continue
			}
			for _, key := range f.Env {
				all = append(all, prefix+key)
			}
		}
		verb := LookupVerb("exec")
		for i := range VerbTable {
			if VerbTable[i].Set&f.Verbs != 0 {
				verb = &VerbTable[i]
			}
		}
		for first := range all {
			vars := []string{}
			for i := first; i < len(all); i++ {
				value := "value" + all[i]
				if f.Kind == Bool {
					value = strconv.FormatBool(i == first)
				}
				vars = append(vars, all[i]+"="+value)
			}
			var v Invocation
			if err := ParseVerb(&v, verb, []string{"image", "a", "b"}, environ(vars...)); err != nil {
				t.Fatal(err)
			}
			switch got := f.Field(&v).(type) {
			case *bool:
				if !*got {
					t.Errorf("--%s: %q give false", f.Name, vars)
				}
			case *string:
				if *got != "value"+all[first] {
					t.Errorf("--%s: %q give %q", f.Name, vars, *got)
				}
			case *[]string:
				if (*got)[0] != "value"+all[first] || !f.EnvAdds && len(*got) != 1 {
					t.Errorf("--%s: %q give %q", f.Name, vars, *got)
				}
			}
			if f.Kind == Bool {
				err := ParseVerb(&Invocation{}, verb, []string{"image", "a", "b"}, environ(all[first]+"=maybe"))
				if err == nil || !strings.HasPrefix(err.Error(), "While parsing environment variables: cannot use "+all[first]+`="maybe"`) {
					t.Errorf("--%s: %v", f.Name, err)
				}
			}
		}
	}
}

func TestHelpWanted(t *testing.T) {
	for _, arg := range []string{"-h", "--help", "-eh"} {
		var v Invocation
		if err := ParseVerb(&v, LookupVerb("exec"), []string{arg}, environ()); err != nil || !v.Help {
			t.Errorf("%s: help %v, %v", arg, v.Help, err)
		}
	}
}

// TestFlagTable holds the table to what the parser and help take for granted.
func TestFlagTable(t *testing.T) {
	for _, table := range [][]Flag{Flags, GlobalFlags} {
		last := ""
		for _, f := range table {
			if f.Name <= last {
				t.Errorf("--%s stands after --%s", f.Name, last)
			}
			last = f.Name
			if f.Help == "" || len(f.Short) > 1 || (f.Kind == Bool) != (f.Value == "") {
				t.Errorf("--%s: incomplete row", f.Name)
			}
			ok := false
			switch f.Field(&Invocation{}).(type) {
			case *bool:
				ok = f.Kind == Bool
			case *string:
				ok = f.Kind == String || f.Kind == OptString
			case *[]string:
				ok = f.Kind == List || f.Kind == Append || f.Kind == Map
			}
			if !ok {
				t.Errorf("--%s: field does not fit its kind", f.Name)
			}
		}
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("exec", "-B\x00/a:/b:ro\x00--env=A=x,B=y\x00a.sif\x00ls", "BIND=/a,/b")
	f.Add("shell", "-s\x00/bin/sh\x00--\x00-x", "CONTAIN=maybe")
	f.Add("run", "--no-mount=\"a,b\x00-ewuf\x00--x", "MOUNT=type=bind\n\"")
	f.Fuzz(func(t *testing.T, verb, args, env string) {
		vb := LookupVerb(verb)
		if vb == nil {
			return
		}
		var v Invocation
		words := strings.Split(args, "\x00")
		if err := ParseVerb(&v, vb, words, environ("SINGULARITY_"+env)); err != nil || v.Help {
			return
		}
		// What follows the image reaches the command as it was typed.
		tail := words[len(words)-len(v.Args)-1:]
		if v.Image != tail[0] || !cmp.Equal(v.Args, tail[1:]) {
			t.Errorf("image %q and arguments %q of %q", v.Image, v.Args, words)
		}
		v.Options.Binds()
	})
}
