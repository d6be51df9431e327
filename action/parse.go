package action

import (
	"encoding/csv"
	"errors"
	"strconv"
	"strings"

	"singularity/plan"
)

// Invocation is a command line of an action command, read.
type Invocation struct {
	Debug, Verbose, Quiet, Silent bool
	NoColor                       bool
	Help, Version                 bool

	Verb    string
	Options plan.Options
	Image   string   // as typed: a path or a URI
	Args    []string // what follows the image
	// Notes are messages about deprecated flags.
	Notes []string
}

// LookupVerb returns the action command called name, or nil.
func LookupVerb(name string) *Verb {
	for i := range VerbTable {
		if VerbTable[i].Name == name {
			return &VerbTable[i]
		}
	}
	return nil
}

// UseLine returns the line of usage of v.
func (v *Verb) UseLine() string { return "singularity [global options] " + v.Use }

// ParseGlobal reads the global options at the start of args into v and returns
// the words from the command on. A value that getenv has for an option counts
// where the option is not given.
func ParseGlobal(v *Invocation, args []string, getenv func(string) string) ([]string, error) {
	p := parser{verb: "singularity", flags: GlobalFlags, v: v}
	rest, err := p.parse(args)
	if err != nil {
		return nil, err
	}
	return rest, p.environment(getenv)
}

// ParseVerb reads the options and arguments of the action command verb into v.
// It sets v.Help, and asks for no arguments, if help is wanted. Options end at
// the first word that is not one.
func ParseVerb(v *Invocation, verb *Verb, args []string, getenv func(string) string) error {
	p := parser{verb: verb.Name, set: verb.Set, flags: Flags, v: v}
	rest, err := p.parse(args)
	if err != nil {
		return err
	}
	if v.Help {
		return nil
	}
	if err := p.environment(getenv); err != nil {
		return err
	}
	if len(rest) < verb.MinArgs {
		return &UsageError{Command: verb.Name, Use: verb.UseLine(),
			Reason: "requires at least " + strconv.Itoa(verb.MinArgs) + " arg(s), only received " + strconv.Itoa(len(rest))}
	}
	v.Verb, v.Image, v.Args = verb.Name, rest[0], rest[1:]
	return nil
}

// A parser reads the flags of one table. Its dialect is that of GNU programs
// without interspersing: the first positional argument ends the options.
type parser struct {
	verb  string
	set   Verbs // 0 for the global options
	flags []Flag
	v     *Invocation
	seen  []any // the fields that the command line set
}

func (p *parser) parse(args []string) ([]string, error) {
	for len(args) > 0 {
		word := args[0]
		if len(word) < 2 || word[0] != '-' {
			return args, nil
		}
		args = args[1:]
		if word == "--" {
			return args, nil
		}
		var err error
		if strings.HasPrefix(word, "--") {
			args, err = p.long(word[2:], args)
		} else {
			args, err = p.cluster(word[1:], args)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// long takes "name" or "name=value" and the words after it.
func (p *parser) long(word string, args []string) ([]string, error) {
	name, value, hasValue := strings.Cut(word, "=")
	if name == "" || name[0] == '-' {
		return nil, p.fail("bad flag syntax: --" + word)
	}
	f := p.byName(name)
	switch {
	case f == nil && name == "help" && !hasValue:
		p.v.Help = true
		return args, nil
	case f == nil:
		return nil, p.fail("unknown flag: --" + name)
	case hasValue:
	case f.Kind.Alone():
		value = "true"
	case len(args) == 0:
		return nil, p.fail("flag needs an argument: --" + name)
	default:
		value, args = args[0], args[1:]
	}
	return args, p.given(f, value)
}

// cluster takes the letters after one dash and the words after them.
func (p *parser) cluster(letters string, args []string) ([]string, error) {
	for i := 0; i < len(letters); i++ {
		rest := letters[i+1:]
		f := p.byShort(letters[i : i+1])
		switch {
		case f == nil && letters[i] == 'h':
			p.v.Help = true
		case f == nil:
			return nil, p.fail("unknown shorthand flag: " + strconv.QuoteRune(firstRune(letters[i:])) + " in -" + letters)
		case strings.HasPrefix(rest, "="):
			return args, p.given(f, rest[1:])
		case f.Kind.Alone():
			if err := p.given(f, "true"); err != nil {
				return nil, err
			}
		case rest != "":
			return args, p.given(f, rest)
		case len(args) == 0:
			return nil, p.fail("flag needs an argument: '" + f.Short + "' in -" + letters)
		default:
			return args[1:], p.given(f, args[0])
		}
	}
	return args, nil
}

func firstRune(s string) rune {
	for _, r := range s {
		return r
	}
	return 0
}

func (p *parser) byName(name string) *Flag {
	return p.find(func(f *Flag) bool { return f.Name == name })
}

func (p *parser) byShort(letter string) *Flag {
	return p.find(func(f *Flag) bool { return f.Short == letter })
}

func (p *parser) find(match func(*Flag) bool) *Flag {
	for i := range p.flags {
		f := &p.flags[i]
		if (p.set == 0 || f.Verbs&p.set != 0) && match(f) {
			return f
		}
	}
	return nil
}

func (p *parser) fail(reason string) error {
	return &UsageError{Command: p.verb, Reason: reason, Options: Options(p.flags, p.set)}
}

// given takes a value of the command line.
func (p *parser) given(f *Flag, value string) error {
	field := f.Field(p.v)
	if !p.isSet(field) {
		p.seen = append(p.seen, field)
	}
	if f.Deprecated != "" {
		p.v.Notes = append(p.v.Notes, "Flag --"+f.Name+" has been deprecated, "+f.Deprecated)
	}
	if err := set(field, f.Kind, value); err != nil {
		name := "--" + f.Name
		if f.Short != "" {
			name = "-" + f.Short + ", " + name
		}
		return p.fail("invalid argument " + strconv.Quote(value) + " for " + strconv.Quote(name) + " flag: " + err.Error())
	}
	return nil
}

func (p *parser) isSet(field any) bool {
	for _, s := range p.seen {
		if s == field {
			return true
		}
	}
	return false
}

// The names that environment variables of ours begin with; each counts where
// those before it are not set, the last only for a Bare flag.
var envPrefixes = [...]string{"SINGULARITY_", "APPTAINER_", ""}

// environment takes values of the environment for flags that were not given.
func (p *parser) environment(getenv func(string) string) error {
	for i := range p.flags {
		f := &p.flags[i]
		if p.set != 0 && f.Verbs&p.set == 0 {
			continue
		}
		for _, prefix := range envPrefixes {
			if prefix == "" && !f.Bare {
				break
			}
			found, err := p.fromEnv(f, prefix, getenv)
			if err != nil {
				return err
			}
			if found {
				break
			}
		}
	}
	return nil
}

// fromEnv tells whether a variable with prefix had a value for f.
func (p *parser) fromEnv(f *Flag, prefix string, getenv func(string) string) (found bool, err error) {
	field := f.Field(p.v)
	for _, key := range f.Env {
		if !f.EnvAdds && p.isSet(field) {
			return found, nil
		}
		value := strings.TrimSpace(getenv(prefix + key))
		if value == "" {
			continue
		}
		found = true
		p.seen = append(p.seen, field)
		if err := setFromEnv(field, f, value); err != nil {
			return found, Fatal(errors.New("While parsing environment variables: cannot use "+prefix+key+"="+strconv.Quote(value)+": "+err.Error()), "")
		}
	}
	return found, nil
}

func setFromEnv(field any, f *Flag, value string) error {
	if f.Kind != Append && f.Kind != List {
		return set(field, f.Kind, value)
	}
	words := strings.Split(value, "\n")
	if !f.EnvWhole {
		words = plan.SplitList(value)
	}
	list := field.(*[]string)
	for _, w := range words {
		if w = strings.TrimSpace(w); w != "" {
			*list = append(*list, w)
		}
	}
	return nil
}

// set stores value where field, of a kind, points.
func set(field any, kind Kind, value string) error {
	switch kind {
	case Bool:
		on, err := strconv.ParseBool(value)
		*field.(*bool) = on
		return err
	case String, OptString:
		*field.(*string) = value
	case Append:
		list := field.(*[]string)
		*list = append(*list, value)
	case List:
		words, err := record(value)
		list := field.(*[]string)
		*list = append(*list, words...)
		return err
	case Map:
		return setMap(field.(*[]string), value)
	}
	return nil
}

// setMap adds "A=x,B=y" to list. A value with one equals sign is one word, so
// that its commas need no quotes.
func setMap(list *[]string, value string) error {
	words := []string{strings.Trim(value, `"`)}
	if strings.Count(value, "=") > 1 {
		var err error
		if words, err = record(value); err != nil {
			return err
		}
	}
	for _, w := range words {
		name, _, ok := strings.Cut(w, "=")
		if !ok || name == "" {
			return errors.New(w + " must be formatted as key=value")
		}
		*list = setVariable(*list, name, w)
	}
	return nil
}

func setVariable(list []string, name, word string) []string {
	for i, old := range list {
		if strings.HasPrefix(old, name+"=") {
			list[i] = word
			return list
		}
	}
	return append(list, word)
}

// record splits one line of CSV. An empty value has no words.
func record(value string) ([]string, error) {
	if value == "" {
		return nil, nil
	}
	return csv.NewReader(strings.NewReader(value)).Read()
}
