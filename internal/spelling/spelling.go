// Package spelling finds the word that somebody most probably meant.
package spelling

import "slices"

// slip is how many letters apart two words may be for one to be taken for a slip of the pen. What is
// further away would be a guess, which misleads.
const slip = 3

// Nearest returns the known word that resembles word most, the first of several. It says whether that is near
// enough to be proposed.
func Nearest(word string, known []string) (nearest string, near bool) {
	if len(known) == 0 {
		return "", false
	}
	nearest = slices.MinFunc(known, func(a, b string) int { return Distance(word, a) - Distance(word, b) })
	return nearest, Distance(word, nearest) <= slip
}

// Distance is the Levenshtein distance of two words. Long words are cut: they resemble nothing.
func Distance(a, b string) int {
	a, b = a[:min(len(a), 80)], b[:min(len(b), 80)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
