"""Plots for text_stories.py: beats in order, each a list of templates; `things` are what the plot can be about.

Slots without a prefix belong to the hero, those with `f_` to the friend. {thing} is always the plot's one thing.
"""

SLOTS = {
    "hobby": ["singing songs", "looking for shells", "climbing trees", "reading books", "watching the clouds", "baking bread",
              "painting pictures", "swimming in the pond", "telling stories", "counting the stars", "picking berries",
              "playing the drum", "flying kites", "running in the rain"],
    "weather": ["sunny", "windy", "rainy", "foggy", "cold", "warm", "bright", "snowy"],
    "daytime": ["morning", "afternoon", "evening", "day"],
    "hiding": ["under a bush", "behind a big rock", "inside a hollow log", "at the bottom of the well", "under the old bridge",
               "in the tall grass", "on top of a roof", "in a dark cave", "behind the mill", "under a pile of leaves"],
    "food": ["apple pie", "warm bread", "hot soup", "berry jam", "honey cakes", "pancakes", "cheese", "carrot stew", "cookies",
             "sweet plums"],
    "color": ["red", "blue", "green", "yellow", "golden", "silver", "purple", "white"],
    "lesson": ["good friends help each other", "it is good to share", "being brave does not mean that you are never afraid",
               "kind words can open any door", "you should never give up", "every problem is smaller when two carry it",
               "even the smallest can do great things", "it is always better to tell the truth",
               "patience is worth more than speed", "asking for help is never a shame"],
    "feeling": ["sad", "worried", "lonely", "upset"],
    "joy": ["happy", "proud", "glad", "full of joy"],
}

PLOTS = {
    "lost": {
        "things": ["key", "hat", "scarf", "ring", "book", "whistle", "lantern", "ball", "bell", "map", "coin", "button",
                   "umbrella", "crown", "doll", "flute"],
        "beats": [
            ["{his} favorite thing was a {color} {thing}. [{he} took it everywhere.|It was a gift from {his} grandmother.]",
             "{he} had a {color} {thing}, and {he} kept it [close|safe] day and night.",
             "{his} grandfather had given {him} a {color} {thing}, and {name} loved it very much."],
            ["But one {weather} {daytime}, the {thing} was gone. {name} looked [everywhere|high and low], but {he} could not "
             "find it.",
             "One {daytime}, {name} reached for the {thing}, but it was not there. \"Oh no!\" {he} cried. \"Where is my {thing}?\"",
             "Then, on a {weather} {daytime}, {he} lost the {thing}. {name} felt very {feeling}."],
            ["A friend named {f_name}, {f_a_trait} {f_kind}, saw {him}. \"Why are you so {feeling}?\" asked {f_name}. \"I have "
             "lost my {thing},\" said {name}. \"Then let us look for it together,\" said {f_name}.",
             "Just then, {f_a_kind} named {f_name} came by. \"I will help you,\" said {f_name}. \"Two can see more than one.\"",
             "{name} asked {his} friend {f_name} the {f_kind} for help. \"Of course I will help you find your {thing},\" said "
             "{f_name}."],
            ["They looked in the house and they looked in the garden. At last, {f_name} saw something {color} {hiding}. It was "
             "the {thing}!",
             "They searched all {daytime}. When they were about to give up, {name} saw something shine {hiding}. \"My {thing}!\" "
             "{he} shouted.",
             "{f_name} followed the footprints until they came to an end. There, {hiding}, lay the {color} {thing}."],
            ["{name} was so {joy} that {he} hugged {f_name}. \"Thank you,\" {he} said. \"I could not have found it without you.\"",
             "\"You found it!\" said {name}. {he} was so {joy} that {he} danced. Then {he} gave {f_name} some {food} to say thank "
             "you.",
             "{name} held the {thing} tight. \"I will never forget this,\" {he} told {f_name}, and they ate {food} together."],
        ],
    },
    "build": {
        "things": ["boat", "kite", "bridge", "tree house", "wagon", "swing", "snowman", "tower", "raft", "windmill", "birdhouse",
                   "clock", "sled", "rocket"],
        "beats": [
            ["One {daytime}, {name} had an idea. \"I will build {a_thing}!\" {he} said.",
             "{name} had always dreamed of building {a_thing}. One {weather} {daytime}, {he} decided to begin.",
             "\"I want {a_thing} of my own,\" said {name}. So {he} went to find some wood."],
            ["{he} worked hard, but the {thing} [fell apart|broke in two]. {name} tried again, and it [fell apart|broke] again.",
             "But building {a_thing} is not easy. The pieces did not fit, and {name} felt {feeling}.",
             "{he} worked until the sun went down, but the {thing} would not stand. \"I cannot do this alone,\" {he} said."],
            ["{f_name}, {f_a_trait} {f_kind}, was watching. \"You need [a rope|more nails|a longer plank],\" said {f_name}. \"I can "
             "bring it, if you let me help.\"",
             "Then {f_name} the {f_kind} came along. \"May I help you?\" {f_he} asked. \"Yes, please,\" said {name}.",
             "{his} friend {f_name} was {f_a_kind} who knew a lot about building. \"Let me show you how,\" said {f_name}."],
            ["{f_name} held the wood while {name} used the hammer. Piece by piece, the {thing} grew.",
             "Together they measured, cut and painted. They painted the {thing} {color}, because that was {f_name}'s favorite "
             "color.",
             "They worked side by side for three days, and they stopped only to eat {food}."],
            ["At last the {thing} was done. It was {color} and strong, and it was the best {thing} in all the land.",
             "When the {thing} was ready, everyone came to see it. \"How did you do it?\" they asked. \"We did it together,\" "
             "said {name}.",
             "\"Look!\" said {name}. \"It works!\" The {thing} was finished, and {f_name} was as {joy} as {name}."],
        ],
    },
    "storm": {
        "things": ["storm", "flood", "blizzard", "thunderstorm", "dark night", "thick fog", "strong wind", "heavy rain"],
        "beats": [
            ["One {daytime}, the sky turned dark. \"{a_thing} is coming!\" called the birds. [Everyone ran home.|Everyone was afraid.]",
             "One {daytime}, {a_thing} came to {the_place}. {name} closed the door and sat by the window.",
             "Nobody {in_the_place} had ever seen such {a_thing}. {name} was safe at home, but {he} could not sleep."],
            ["Then {name} heard a voice outside. \"Help! Help!\" it called. It was {f_name}, {f_a_trait} {f_kind}.",
             "Suddenly there was a knock at the door. It was {f_a_kind} named {f_name}. {f_he} was cold and lost.",
             "Then {he} remembered {f_name}, the {f_kind} who lived [near the river|at the edge of the woods]. \"I must see if {f_name} "
             "is safe,\" said {name}."],
            ["{name} was afraid, but {he} took a lantern and went out. Soon {he} had found {f_name} and brought {f_him} inside.",
             "{name} did not think twice. {he} ran outside, took {f_name} by the hand and led {f_him} into the warm house.",
             "{name} hurried out to {f_him}. \"Do not worry,\" {he} said. \"You can stay with me until the {thing} is over.\""],
            ["Together they sat by the fire. {name} made {food}, and {f_name} told a story about the sea.",
             "They wrapped themselves in a {color} blanket and ate {food} while the {thing} went by.",
             "{f_name} was still shaking, so {name} sang a song until {f_he} was not afraid any more."],
            ["In the morning the {thing} was over, and the sun came out. \"You saved me,\" said {f_name}. \"Thank you, {name}.\"",
             "When they woke up, the sky was blue again. {f_name} hugged {name}. \"You were so brave,\" {f_he} said.",
             "By morning the {thing} had gone. {name} and {f_name} went out to help the others, and everyone was {joy}."],
        ],
    },
    "share": {
        "things": ["cake", "basket of apples", "pot of honey", "bag of nuts", "loaf of bread", "bowl of berries", "jar of cookies",
                   "pumpkin", "watermelon", "pot of soup"],
        "beats": [
            ["One {daytime}, {name} found {a_thing} {hiding}. It smelled so good! \"This is all mine,\" said {name}.",
             "One {daytime}, {his} grandmother gave {him} {a_thing}. \"I will eat it all by myself,\" {he} thought.",
             "{name} had worked all week, and now {he} had {a_thing}. {he} sat down [under a tree|by the river] to eat."],
            ["Then {f_name} the {f_kind} came by. {f_he} had not eaten [all day|since yesterday]. \"That looks good,\" {f_he} said "
             "quietly.",
             "{f_a_trait} {f_kind} named {f_name} was sitting nearby. {f_his} belly was empty, and {f_he} looked {feeling}.",
             "Soon {f_a_kind} named {f_name} walked up. \"I am so hungry,\" said {f_name}. \"Could I have a little?\""],
            ["\"No,\" said {name}. \"There is not enough for two.\" {f_name} walked away with {f_his} head down.",
             "At first {name} wanted to say no. But {he} saw how {feeling} {f_name} was.",
             "{name} turned away and took a bite. But somehow the {thing} did not taste as good as before."],
            ["{name} thought about it. \"Wait!\" {he} called. \"Come back, {f_name}. We can share the {thing}.\"",
             "{name} remembered how it feels to be hungry. {he} gave half of the {thing} to {f_name}.",
             "\"I am sorry,\" said {name}. \"Please sit with me. There is enough for both of us.\""],
            ["They ate together, and it was the best {thing} that {name} had ever tasted. The next day, {f_name} came back with "
             "{food} for {name}.",
             "{f_name} was so {joy} that {f_he} sang a song. {name} laughed, and they ate until nothing was left.",
             "\"Thank you,\" said {f_name}. \"Next time, I will share my {food} with you.\" And {f_he} did."],
        ],
    },
    "contest": {
        "things": ["race", "singing contest", "baking contest", "swimming race", "painting contest", "dancing contest",
                   "kite contest", "boat race", "jumping contest"],
        "beats": [
            ["One {daytime}, there was a {color} sign on the wall. \"Big {thing} on Sunday!\" it said. {name} wanted to win.",
             "Every year there was a {thing} {in_the_place}. This year, {name} wanted to take part.",
             "\"There will be a {thing} tomorrow,\" said the mayor. \"The winner gets a {color} cup.\" {name} was excited."],
            ["{name} practiced every {daytime}. But {he} was [too slow|too nervous], and the others laughed at {him}.",
             "But {f_name}, {f_a_trait} {f_kind}, wanted to win as well. \"You will never beat me,\" said {f_name}.",
             "{he} practiced with {f_name}, {his} friend, {f_a_kind} who had won the {thing} last year."],
            ["At last the day of the {thing} came. It was {weather}, and everybody from {the_place} was there.",
             "On Sunday, {name}'s heart was beating fast. \"Just do your best,\" said {his} mother.",
             "When the {thing} began, {name} took a deep breath and gave {his} best."],
            ["In the middle of the {thing}, {f_name} fell down and hurt {f_his} foot. {name} stopped. \"Are you all right?\" {he} "
             "asked, and {he} helped {f_name} up.",
             "{name} was in front, and the end was near. Then {he} heard {f_name} crying behind {him}. {name} turned back to help.",
             "{name} and {f_name} were the last two left. Nobody could say which of them was better."],
            ["They finished together, side by side. The mayor smiled and gave the {color} cup to both of them.",
             "{name} did not win the {thing}, but everyone cheered for {him}. \"You are the real winner,\" said {f_name}.",
             "In the end, the judges gave each of them a prize. \"We both won,\" said {f_name}, and {name} was {joy}."],
        ],
    },
    "mystery": {
        "things": ["map", "box", "door", "egg", "letter", "bottle", "stone", "mirror", "feather", "seed", "light", "footprint",
                   "music box", "trunk"],
        "beats": [
            ["One {weather} {daytime}, {name} found a strange {thing} {hiding}. It was {color}, and it was [warm|shining|very old].",
             "One {daytime}, {name} saw a {color} {thing} {hiding}. {he} had never seen one like it.",
             "On a {weather} {daytime}, {he} went for a walk and found a {thing}. It was {color}, and it made a soft sound."],
            ["\"What can it be?\" {name} wondered. {he} took it to {f_name}, {f_a_trait} {f_kind} who knew many things.",
             "{name} showed the {thing} to {his} friend {f_name} the {f_kind}. \"It is magic,\" whispered {f_name}.",
             "{he} asked everyone {in_the_place}, but nobody knew. Only {f_name}, an old {f_kind}, smiled. \"I know what it is,\" said "
             "{f_name}."],
            ["\"This {thing} belongs to the queen of the [forest|river|moon],\" said {f_name}. \"We must bring it back to her.\"",
             "\"It will show us the way to a treasure,\" said {f_name}. \"But only if we are brave.\"",
             "That night, the {thing} began to glow. It lit a path that led into the [hills|woods|dark]."],
            ["So they set out together. They crossed a river, climbed a hill and walked past [a sleeping giant|a hundred owls].",
             "{name} and {f_name} followed the path. It was dark, and {name} was a little afraid, but {f_name} held {his} hand.",
             "They walked all night. When {name} was tired, {f_name} carried the {thing}, and when {f_name} was tired, {name} did."],
            ["At the end of the path they found a {color} garden. \"Thank you,\" said a voice. \"You have brought my {thing} home. Take "
             "as much {food} as you can carry.\"",
             "At last they came to a small {color} house. Inside was a table full of {food}, just for them.",
             "There they found the treasure. It was not gold. It was a picture of two friends, {a_kind} and {f_a_kind}, and it "
             "looked just like them."],
        ],
    },
    "garden": {
        "things": ["sunflower", "apple tree", "rose", "pumpkin", "cherry tree", "carrot", "bean plant", "strawberry", "oak tree",
                   "tulip", "lemon tree"],
        "beats": [
            ["One {daytime}, {name} planted a tiny seed. \"It will be {a_thing},\" {he} said.",
             "In spring, {f_name} the {f_kind} gave {name} a seed. \"Take good care of it,\" said {f_name}, \"and it will grow into "
             "{a_thing}.\"",
             "{name} wanted to grow {a_thing}, so {he} put a seed in the ground."],
            ["Every {daytime} {he} gave it water. But one week went by, and nothing happened.",
             "{he} looked at it each day. \"Why does it not grow?\" {name} asked. {he} was {feeling}.",
             "Days passed, and there was nothing but brown earth. {name} wanted to dig up the seed."],
            ["\"You must wait,\" said {f_name}, who was {f_a_trait} {f_kind}. \"A good thing needs time.\"",
             "\"Do not give up,\" said {his} friend {f_name}. \"Sing to it, give it water, and wait.\"",
             "{f_name} sat down beside {him}. \"I will wait with you,\" {f_he} said, and they shared some {food}."],
            ["Then, after a night of rain, a small green leaf came out of the ground. \"Look!\" cried {name}.",
             "One {weather} {daytime}, there was a tiny green leaf. {name} jumped up and down.",
             "The rain came, and then the sun. And one {daytime}, something green looked out of the earth."],
            ["The {thing} grew and grew. In the end, it was the most beautiful {thing} {in_the_place}, and {name} was {joy}.",
             "By summer the {thing} was taller than {name}. {he} and {f_name} sat in its shade and ate {food}.",
             "Soon everybody came to see the {thing}. \"It only needed time and love,\" said {name}."],
        ],
    },
    "fear": {
        "things": ["dark", "deep water", "thunder", "old bridge", "tall ladder", "big cave", "night", "high hill", "loud drum"],
        "beats": [
            ["But {name} had a secret. {he} was afraid of the {thing}.",
             "There was only one thing that {name} did not like: the {thing}. It made {his} knees shake.",
             "All of {his} friends played near the {thing}, but {name} was too afraid."],
            ["{f_name}, {f_a_trait} {f_kind}, said, \"I used to be afraid of the {thing} too. Do you want to know what helped me?\"",
             "One {daytime}, {f_name} the {f_kind} was in trouble, and the only way to help {f_him} was to face the {thing}.",
             "\"Come with me,\" said {his} friend {f_name}, who was {f_a_kind}. \"We will go together, one step at a time.\""],
            ["{name} took one small step. Then {he} took another one. {his} heart was beating fast, but {he} did not stop.",
             "{name} closed {his} eyes and counted to ten. \"I can do it,\" {he} said to {himself}.",
             "\"What if I fall?\" asked {name}. \"Then I will catch you,\" said {f_name}."],
            ["And then {name} saw that the {thing} was not so bad at all. There were little {color} lights everywhere, and it was "
             "beautiful.",
             "Step by step, they went on. After a while, {name} began to sing, and the {thing} did not seem so big any more.",
             "Soon {he} was on the other side. {name} looked back. \"Was that all?\" {he} laughed."],
            ["\"You did it!\" shouted {f_name}. {name} was {joy}, and {he} was not afraid of the {thing} any more.",
             "When they came home, {his} mother had made {food}. \"I am proud of you,\" she said.",
             "{name} smiled from ear to ear. \"Let us do it again tomorrow!\" {he} said."],
        ],
    },
    "gift": {
        "things": ["scarf", "necklace", "painting", "song", "cake", "blanket", "lantern", "music box", "hat", "wooden horse", "poem",
                   "quilt"],
        "beats": [
            ["Tomorrow was the birthday of {his} friend {f_name}, {f_a_trait} {f_kind}. {name} wanted to give {f_him} something special.",
             "{his} best friend was {f_a_kind} named {f_name}. {f_name}'s birthday was near, but {name} had no money for a gift.",
             "\"What can I give {f_name} for {f_his} birthday?\" {name} asked {himself}. {f_name} was {f_a_kind}, and {f_he} was {his} "
             "best friend."],
            ["{he} thought and thought. Then {he} had an idea. \"I will make {f_him} {a_thing}!\" {he} said.",
             "{name} looked in all the shops, but everything was too [big|dear|plain]. \"I will make {a_thing} myself,\" {he} said.",
             "At last {he} knew what to do. {he} would make {a_thing}, because {f_name} had always wanted one."],
            ["{name} worked all night by the light of a candle. {he} made the {thing} {color}, just the way {f_name} liked it.",
             "It was not easy. The first {thing} was too small, and the second one was crooked. But the third one was just right.",
             "{he} worked on the {thing} for hours. When {he} was done, {he} wrapped it in {color} paper."],
            ["The next day, {name} brought the {thing} to {f_name}'s house. {f_name} opened it slowly, and {f_his} eyes grew wide.",
             "At the party there were big gifts and shiny gifts. {name} felt shy about {his} {thing}.",
             "{name} knocked on the door. \"Happy birthday, {f_name}!\" {he} said, and {he} held out the {thing}."],
            ["\"It is the best gift of all,\" said {f_name}, \"because you made it yourself.\" They ate {food} and danced until night.",
             "{f_name} hugged {name}. \"I love it!\" {f_he} said. \"I will keep this {thing} forever.\"",
             "\"A {thing}!\" cried {f_name}. \"How did you know?\" {name} only smiled, and {he} was {joy}."],
        ],
    },
    "newcomer": {
        "things": ["stranger", "new neighbor", "traveler", "visitor", "guest"],
        "beats": [
            ["One {daytime}, a {thing} came to {the_place}. It was {f_a_trait} {f_kind} named {f_name}.",
             "One {weather} {daytime}, there was a {thing} at the gate. {f_his} name was {f_name}, and {f_he} was {f_a_kind}.",
             "Nobody had ever seen {f_a_kind} {in_the_place}. But one {daytime} a {thing} came, and {f_his} name was {f_name}."],
            ["Nobody wanted to talk to {f_name}. \"{f_he} is different from us,\" they said. {f_name} sat alone and was {feeling}.",
             "The others stayed away. \"We do not know {f_him},\" they whispered. But {name} felt {feeling} for {f_name}.",
             "{f_name} spoke in a strange way and wore a {color} coat. The others laughed, but {name} did not."],
            ["{name} walked up to {f_him}. \"Hello,\" {he} said. \"I am {name}. Do you like {hobby}?\"",
             "\"Would you like some {food}?\" asked {name}. The {thing} looked up and smiled for the first time.",
             "{name} took some {food} and sat down next to {f_name}. For a while they ate in silence. Then they began to talk."],
            ["{f_name} knew stories from far away. {f_he} told {name} about [ships and stars|mountains of ice|cities made of glass], and "
             "{name} listened for hours.",
             "It turned out that {f_name} loved {hobby}, just like {name}. They played together until it was dark.",
             "{f_name} showed {name} how to make a {color} lantern out of paper. It was the prettiest thing that {name} had ever seen."],
            ["The next day, the others came to see. Soon everyone was laughing, and {f_name} was not a {thing} any more.",
             "\"I am sorry that we laughed,\" said the others. \"Will you play with us too?\" And {f_name} said yes.",
             "That evening there was a feast with {food} for everyone, and {f_name} sat next to {name}."],
        ],
    },
}
