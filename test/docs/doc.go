// Package docs reads the project's documents as a user does who copies their commands.
//
// [Blocks] finds what stands in fences; a block's [Block.Commands] are what is to be typed, with what the document says about the answer. A test
// types all of it, on a real engine with ufw, and checks what the words around promise: who is served, and who is not. What cannot be typed there, such as
// "make test", is listed in the test with where it is run instead, so that a new block is either run or accounted for.
package docs
