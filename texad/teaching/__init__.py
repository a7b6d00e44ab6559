"""What a reader can play with: quizzes, the threshold explorer, notebooks without solutions."""
