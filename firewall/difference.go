package firewall

import "fmt"

// SetWords says in one line how the content of a set differs from what is wanted, "" if it does not.
func SetWords[E any](name string, absent bool, lacks, surplus []E, show func(E) string) string {
	switch {
	case absent:
		return fmt.Sprintf("set %s is missing", name)
	case len(lacks) > 0:
		return fmt.Sprintf("set %s lacks %s", name, Some(lacks, "element", show))
	case len(surplus) > 0:
		return fmt.Sprintf("set %s has too much: %s", name, Some(surplus, "element", show))
	}
	return ""
}

// Some counts things and names one of them.
func Some[T any](things []T, what string, show func(T) string) string {
	if len(things) == 1 {
		return fmt.Sprintf("the %s %s", what, show(things[0]))
	}
	return fmt.Sprintf("%d %ss such as %s", len(things), what, show(things[0]))
}
