"""The text that the bundled models learn from: stories keep their names, functions parse and compute what they say."""
import ast
import pathlib
import random
import re
import sys
import unittest

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tools"))
import text_code  # noqa: E402
import text_stories  # noqa: E402

NAMES = {name for names in text_stories.NAMES.values() for name in names}


class Stories(unittest.TestCase):
    def test_a_story_knows_two_names_and_no_open_slot(self):
        rng = random.Random(1)
        for _ in range(500):
            story = text_stories.draw(rng)
            text = story.text()
            self.assertNotRegex(text, r"[{}\[\]|]")
            named = {word for word in re.findall(r"\w+", text) if word in NAMES}
            self.assertLessEqual(named, {story.slots["name"], story.slots["f_name"]})
            self.assertIn(story.slots["name"], named)

    def test_what_is_held_out_is_never_trained_on(self):
        rng = random.Random(2)
        key = lambda s: (s.slots["kind"], s.slots["thing"], s.plot_name)  # noqa: E731
        held = {key(text_stories.draw(rng, held_out=True)) for _ in range(100)}
        self.assertFalse(held & {key(text_stories.draw(rng)) for _ in range(3000)})

    def test_the_same_seed_gives_the_same_text(self):
        self.assertEqual([text_stories.document(random.Random(5)) for _ in range(3)],
                         [text_stories.document(random.Random(5)) for _ in range(3)])


class Functions(unittest.TestCase):
    def test_all_parse_and_compile(self):
        rng = random.Random(3)
        for _ in range(1500):
            ast.parse(text_code.source(text_code.draw(rng), rng))

    def test_they_compute_what_their_names_say(self):
        cases = {"sum_of_squares_of_even": (([1, 2, -4],), 20), "count_vowels": (("banana",), 3), "is_prime": ((29,), True),
                 "binary_search": (([1, 3, 5, 7], 5), 2), "celsius_to_fahrenheit": ((100,), 212), "remove_digits": (("a1b22",), "ab"),
                 "median": (([3, 1, 2],), 2), "fibonacci": ((10,), 55), "gcd": ((12, 18), 6), "to_binary": ((10,), "1010"),
                 "quick_sort": (([3, 1, 2],), [1, 2, 3]), "rectangle_area": ((3, 4), 12), "longest_word": ((["a", "abc"],), "abc")}
        rng, seen = random.Random(4), set()
        while seen != set(cases):
            function = text_code.draw(rng, held_out=rng.random() < 0.1)
            if function.name not in cases:
                continue
            seen.add(function.name)
            scope = {}
            exec(compile(function.source(typed=True, documented=True), function.name, "exec"), scope)
            arguments, wanted = cases[function.name]
            self.assertEqual(scope[function.name](*arguments), wanted, function.source(False, True))


if __name__ == "__main__":
    unittest.main()
