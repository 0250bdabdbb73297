"""The wording of the demo world: how queries and titles are phrased, and which words mean the same.

A tuple that is common to all splits holds words whose meaning can be learned in training; a dictionary by split holds
wording that dev and test do not share with training.
"""

from __future__ import annotations


def _by_split(train: str, dev: str, test: str) -> dict[str, tuple[str, ...]]:
    return {"train": tuple(train.split()), "dev": tuple(dev.split()), "test": tuple(test.split())}


# Queries: {0} is what is asked for. These are neutral, so they are common to all splits.
QUERY_FRAMES = (
    "{0}",
    "{0}",
    "{0}",
    "{0}研究",
    "{0}论文",
    "{0}分析",
    "关于{0}的研究",
    "{0}相关文献",
    "有哪些关于{0}的文章",
    "{0}方面的研究进展",
    "怎样研究{0}",
    "{0} 综述",
)

# Titles: {0} is the body. Every split has its own whole wording, made of words that all splits use.
TITLE_FRAMES = _by_split(
    "{0}研究 {0}的研究 {0}分析 {0}探讨 试论{0} 浅析{0} {0}的若干问题 {0}初步探讨 我国{0}研究 {0}研究进展 关于{0}的思考 "
    "{0}的实验研究 {0}综述",
    "{0}的若干思考 试析{0} {0}的初步分析 关于{0}的探讨 {0}问题研究 {0}的进展 我国{0}分析 {0}的综述",
    "{0}的思考 浅论{0} {0}若干问题分析 关于{0}研究的综述 {0}的探讨 {0}实验分析 我国{0}的若干进展",
)

# Background: {0} is only the setting (the title says it twice), {1} is what the paper is about. The words that make
# {0} a setting are common; how they are put together is each split's own.
BACKGROUND_FRAMES = _by_split(
    "{0}背景下的{1}：{0}的启示 借鉴{0}的{1}——以{0}为鉴 {0}启发的{1}：{0}的经验 除{0}以外的{1}——与{0}对照 "
    "参照{0}的{1}：{0}的启示 {0}时代的{1}——借鉴{0} {0}经验下的{1}：参照{0}",
    "以{0}为鉴的{1}：参照{0} {0}背景下的{1}——{0}的经验 与{0}对照的{1}：{0}的启示 {0}启发的{1}——除{0}以外",
    "参照{0}的{1}——{0}的经验 以{0}为鉴的{1}——{0}的启示 {0}时代的{1}：与{0}对照 除{0}以外的{1}：借鉴{0}",
)

# Direction: {0} acts on {1}. The verbs of each split are its own; the grammar (对 … 的, 受 … 的) is common.
DIRECTION_VERBS = _by_split(
    "影响 调节 促进作用 抑制作用 冲击 贡献 改造",
    "制约 推动作用 干扰 塑造",
    "驱动作用 削弱 渗透 反作用",
)
DIRECTION_FRAMES = ("{0}对{1}的{2}", "{0}对{1}的{2}", "{0}对于{1}的{2}")
PASSIVE_FRAMES = ("{1}受{0}的{2}", "{1}中来自{0}的{2}")

# Words that change the subject: 抗X is not X, X教材 is not X. Common ones are seen in training, the others are not.
MARKERS = ("非{0}", "抗{0}", "仿{0}", "伪{0}", "{0}教材", "{0}替代品", "{0}从业者", "{0}软件", "{0}专利", "{0}术语")
NEW_MARKERS = {
    "train": (),
    "dev": ("拟{0}", "亚{0}", "{0}展览", "{0}题材电影"),
    "test": ("准{0}", "泛{0}", "{0}词典", "{0}周边产品"),
}

# Sets of meanings that exclude each other; the words of one meaning are synonyms.
SynonymSet = tuple[tuple[str, ...], ...]


def _sets(text: str) -> tuple[SynonymSet, ...]:
    return tuple(
        tuple(tuple(meaning.split("/")) for meaning in line.split()) for line in text.strip().splitlines() if line
    )


# Words of one meaning share the character that carries it; words of the meaning beside it share the others.
SETTINGS = _sets("""
老年人/老龄人群/老人 青年人/青壮年人群/青年 幼年人/幼儿人群/幼童
农村/农家村落/务农地区 城市/城镇/都市城区
女性/妇女/女子 男性/男士/男子
早期/早先阶段/早年 晚期/晚近阶段/晚年
国内/内地/境内 国外/外国/境外
夏季/夏天/盛夏 冬季/冬天/寒冬
南部/南方/华南地区 北部/北方/华北地区
""")
ASPECTS = _sets("""
治疗方法/疗法/诊疗 预防方法/防范/防控
成因/原因/因素 后果/结果/效果
优势/优点/优越之处 缺陷/缺点/欠缺之处
提高/提升/高速增长 降低/下降/降速
历史/史略/发展史 前景/前途/发展前瞻
成本/本钱/工本 收益/效益/增益
""")
# Words of one meaning that share nothing: known only from having been seen together.
FAR_SYNONYMS = _sets("""
高校/大学 小学/初等学堂
医生/杏林人士 护士/看护人员
现状/概况 对策/措施
衡量/评估 选址/布局
""")
NEW_SYNONYMS = {
    "train": (),
    "dev": _sets("""
孕妇/怀孕妇女/孕期人群 产妇/产后妇女/生产期人群
上午/上半天/午前 下午/下半天/午后
山区/山地/多山地区 海区/海域/沿海地区
"""),
    "test": _sets("""
工人/产业工人/务工人员 商人/经商人员/行商
春季/春天/早春 秋季/秋天/深秋
东部/东方/华东地区 西部/西方/西北地区
"""),
}

# People and institutions: in a query for a topic they are where the paper comes from, and titles do not name them.
SURNAMES = tuple("王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗")
GIVEN_NAMES = _by_split(
    "建国 志强 丽华 晓明 文静 海燕 国栋 玉兰 思远 春生 立新 雅琴 伟 敏 芳 磊",
    "永平 嘉怡 振华 秀英 静 凯",
    "德胜 若兰 宏图 淑贞 勇 洁",
)
PLACES = _by_split(
    "北京 江苏 湖南 西南 华东 山东 浙江 东北 广西 河南 南京 兰州",
    "四川 华南 安徽 天津",
    "云南 华北 福建 西安",
)
INSTITUTIONS = ("大学", "师范大学", "农业大学", "理工大学", "医科大学", "科学院", "研究院", "财经大学")
PERSON_ASPECTS = ("学术思想", "生平", "年谱", "书法作品", "教育理念", "口述史")
PLACE_ASPECTS = ("校史", "馆藏", "校园规划", "人才引进", "创办经过", "大学生就业", "档案整理", "老建筑")

# Titles that set two subjects side by side.
COMPARISONS = _by_split(
    "{0}与{1}的比较 {0}和{1}的关系 {0}与{1}的异同 {0}与{1}对比",
    "{0}和{1}的差异 {0}与{1}的联系",
    "{0}与{1}的区别 {0}和{1}的关联",
)
