"""What any process of tenure answers over HTTP about itself: does it live, is it ready, its numbers."""
