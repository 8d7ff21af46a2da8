package publish

import "testing"

// TestWakerEnds: the end that was asked for is no error.
func TestWakerEnds(t *testing.T) {
	w, err := newWaker()
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- w.run(func(int) {}) }()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
