package firewall

import (
	"errors"
	"slices"
	"testing"
)

// TestLack: it is asked until the answer is one for good.
func TestLack(t *testing.T) {
	lacks, passes := errors.New("lacks it"), errors.New("no memory")
	for _, tt := range []struct{ answers, want []error }{
		{[]error{nil}, []error{nil, nil, nil}},
		{[]error{lacks}, []error{lacks, lacks, lacks}},
		{[]error{passes, passes, nil}, []error{passes, passes, nil, nil}},
		{[]error{passes, lacks}, []error{passes, lacks, lacks}},
	} {
		var l Lack
		var got []error
		for range tt.want {
			got = append(got, l.Ask(func() error {
				if len(tt.answers) == 0 {
					t.Fatal("asked for what is known")
				}
				err := tt.answers[0]
				tt.answers = tt.answers[1:]
				return err
			}, func(err error) bool { return errors.Is(err, lacks) }))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("got %v, want %v", got, tt.want)
		}
	}
}
