package hostfw

import (
	"context"
	"slices"
	"strings"

	"github.com/drawbridge-net/drawbridge/internal/legacytables"
)

// legacyTables have an INPUT chain in which a rule may refuse. That of nat may not.
var legacyTables = []string{"filter", "mangle", "security"}

// readLegacy reads those of the tables that are there. None is named that is not: the variant's programs would make it.
func readLegacy(ctx context.Context, run Runner) ([]table, error) {
	var out []table
	for _, v6 := range []bool{false, true} {
		for _, name := range legacyTables {
			if !slices.Contains(legacytables.Present(v6), name) {
				continue
			}
			program := "iptables-legacy"
			if v6 {
				program = "ip6tables-legacy"
			}
			save, err := run(ctx, "", program+"-save", "-t", name)
			if err != nil {
				return nil, err
			}
			out = append(out, parseSave(save, iptablesLabel(program+": ", "", name)))
		}
	}
	return out, nil
}

// iptablesLabel names a table of iptables; that of most rules goes without saying.
func iptablesLabel(before, after, table string) label {
	if table != "filter" {
		after += " (table " + table + ")"
	}
	return label{before, after, " has policy DROP"}
}

// parseSave reads what iptables-save printed of one table. Lines it does not know are passed over.
func parseSave(save string, l label) table {
	t := table{label: l, chains: map[string]*chain{}}
	for line := range strings.Lines(save) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, ":"):
			name, rest, _ := strings.Cut(line[1:], " ")
			policy, _, _ := strings.Cut(rest, " ")
			t.chains[name] = &chain{input: name == "INPUT", drops: name == "INPUT" && policy != "ACCEPT"}
		case strings.HasPrefix(line, "-A "):
			words := splitWords(line)
			if len(words) < 2 || t.chains[words[1]] == nil {
				continue
			}
			c := t.chains[words[1]]
			c.rules = append(c.rules, t.parseRule(words[2:]))
		}
	}
	return t
}

// parseRule reads the words of a rule behind the chain. Chains are known by then: iptables-save prints them first.
func (t table) parseRule(words []string) rule {
	for i, w := range words[:max(0, len(words)-1)] {
		value := words[i+1]
		switch {
		case w == "--ctstate" || w == "--state":
			if value == "INVALID" && (i == 0 || words[i-1] != "!") {
				return rule{}
			}
		case w == "-j" || w == "-g": // the last of what is looked at: behind it come the target's own words
			if t.chains[value] != nil {
				return rule{jumps: value}
			}
			return rule{refuses: !harmlessTarget(value)}
		}
	}
	return rule{}
}

// harmless are the targets of iptables that refuse nothing. All others may, those that are not known here among them.
var harmless = []string{
	"ACCEPT", "AUDIT", "CHECKSUM", "CLASSIFY", "CONNMARK", "CONNSECMARK", "CT", "DSCP", "HL", "HMARK", "IDLETIMER", "LED", "LOG", "MARK",
	"NFLOG", "NOTRACK", "RATEEST", "RETURN", "SECMARK", "SET", "TCPMSS", "TCPOPTSTRIP", "TEE", "TOS", "TRACE", "TTL", "ULOG",
}

func harmlessTarget(name string) bool { return slices.Contains(harmless, name) }

// splitWords splits a line of iptables-save. A word in double quotes, such as a comment, may have blanks in it, and \ ahead of a quote.
func splitWords(line string) []string {
	var out []string
	var word strings.Builder
	quoted, escaped, begun := false, false, false
	for _, r := range line + " " {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	return out
}
