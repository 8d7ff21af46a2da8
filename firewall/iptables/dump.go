package iptables

import (
	"regexp"
	"slices"
	"strings"
)

// dump is what iptables-save printed, kept as text: chains by table, and the rules
// of each chain without their leading "-A CHAIN ".
type dump map[string]map[string][]string

// parse reads the output of iptables-save. Lines it does not know are passed over.
func parse(save string) dump {
	d := dump{}
	var table map[string][]string
	for line := range strings.Lines(save) {
		line = strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(line, "*"):
			table = map[string][]string{}
			d[line[1:]] = table
		case strings.HasPrefix(line, ":") && table != nil:
			name, _, _ := strings.Cut(line[1:], " ")
			table[name] = nil
		case strings.HasPrefix(line, "-A ") && table != nil:
			chain, rule, _ := strings.Cut(line[len("-A "):], " ")
			table[chain] = append(table[chain], rule)
		}
	}
	return d
}

// idBegin is what stands ahead of the id in the comment of a dumped rule.
const idBegin = `--comment "` + mark + " "

// idOf returns the id in the comment of a dumped rule, "" if it is not a rule of ours. It is called for each rule of
// each pass.
func idOf(rule string) string {
	for {
		i := strings.Index(rule, idBegin)
		if i < 0 {
			return ""
		}
		rule = rule[i+len(idBegin):]
		if len(rule) > idLength && rule[idLength] == ' ' && isHex(rule[:idLength]) {
			return rule[:idLength]
		}
	}
}

func isHex(s string) bool {
	return strings.Trim(s, "0123456789abcdef") == ""
}

// target returns the chain or target that a dumped rule jumps to.
func target(rule string) string {
	fields := strings.Fields(rule)
	for i := len(fields) - 2; i >= 0; i-- {
		if fields[i] == "-j" || fields[i] == "-g" {
			return fields[i+1]
		}
	}
	return ""
}

// referenced reports whether a rule that is not ours, and will therefore stay, leads to the chain.
func referenced(table map[string][]string, chain string) bool {
	for name, rules := range table {
		if isOurs(name) && name != chainUser {
			continue
		}
		for _, r := range rules {
			if target(r) == chain && idOf(r) == "" {
				return true
			}
		}
	}
	return false
}

// isOurs reports whether a chain belongs to us by its name, user chain included. No name of ours has what iptables-restore would
// read as the end of a word; the kernel lets others have it.
func isOurs(chain string) bool {
	return strings.HasPrefix(chain, prefix+"-") && !strings.ContainsFunc(chain, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// bridgePattern leaves out names that would end or begin a quoted word in a rule of ours.
var bridgePattern = regexp.MustCompile(`^-o ([^\s"'\\]+) `)

// barsPattern matches a rule that refuses what is for a loopback address.
var barsPattern = regexp.MustCompile(`^(?:-s \S+ )?-d 127\.\S+ .*-j (?:DROP|REJECT)\b`)

// barsLoopback reports whether a rule of others refuses packets for loopback addresses on their way to the host's processes, as
// many guides advise for what did not come by lo. What another rule accepts before it is not looked for.
func (d dump) barsLoopback() bool {
	for _, table := range []string{"mangle", "filter"} {
		for chain, rules := range d[table] {
			switch chain {
			case "PREROUTING", "FORWARD", "OUTPUT", "POSTROUTING":
				continue // where answers to translated connections do not come by, or not with that address
			}
			for _, r := range rules {
				byLo := strings.Contains(r, " -i lo ") && !strings.Contains(r, "! -i lo ")
				if idOf(r) == "" && !byLo && barsPattern.MatchString(r) {
					return true
				}
			}
		}
	}
	return false
}

// plainReturn is a rule that does nothing but end the chain, as dockerd puts one at the end of DOCKER-USER.
var plainReturn = regexp.MustCompile(`^(?:-m comment --comment (?:"[^"]*"|\S+) )?-j RETURN$`)

// userRules reports whether DOCKER-USER has rules that decide about something.
func (d dump) userRules() bool {
	rules := d["filter"][chainDockerUser]
	return len(rules) > 0 && !plainReturn.MatchString(rules[0])
}

// dockerBridges returns the bridges of Docker's own driver: it names each of
// them in one of its own chains, up to Docker 28 in the second isolation chain, from 28 on in
// DOCKER-BRIDGE. Names of bridges alone would not do, since users choose them, and
// br-lan or virbr0 may be the way to the world.
func (d dump) dockerBridges() []string {
	var out []string
	for _, chain := range []string{"DOCKER-ISOLATION-STAGE-2", "DOCKER-BRIDGE"} {
		for _, rule := range d["filter"][chain] {
			if m := bridgePattern.FindStringSubmatch(rule); m != nil {
				out = append(out, m[1])
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
